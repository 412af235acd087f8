"""Very small and very large numbers, and many threads: right log-odds or an error."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gpm_hf.modeling import GPMForPreference, evaluation_mode, pair_scores, preference_matrix
from gpm_hf.modeling.scores_gpm import unit_norm
from gpm_hf.scoring import GPMScorer, RewardModelScorer
from tests.conftest import backbone_config, build_gpm, build_tokenizer

PROMPT, RESPONSES = "Which colour?", ["Red.", "Green, of course.", "Blue"]


def scaled(factor, **options):
    """A model whose embeddings are those of the same model times a factor, before they are normalised."""
    model = build_gpm(embedding_dim=4, **options)
    model.embedding_head.weight.data *= factor
    return model


@pytest.mark.parametrize("factor", [1e-36, 1e-25, 1e-15, 1e-12, 1e12, 1e19, 1e25, 1e36])
def test_normalised_embeddings_have_no_scale(tokenizer, factor):
    expected = scaled(1.0).preference_scores(tokenizer, PROMPT, RESPONSES)
    assert expected.abs().max() > 0.1
    found = scaled(factor).preference_scores(tokenizer, PROMPT, RESPONSES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_unit_norm_is_the_plain_quotient():
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(1000, 6, generator=generator)
    # Bit by bit what models gave before.
    assert torch.equal(unit_norm(embeddings), torch.nn.functional.normalize(embeddings, dim=-1))
    for factor in (1e-42, 1e-30, 1.0, 1e30, 3e37):
        sized = (embeddings.double() * factor).float()
        exact = sized.double() / sized.double().norm(dim=-1, keepdim=True)
        torch.testing.assert_close(unit_norm(sized).double(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(unit_norm(torch.zeros(2, 4)), torch.zeros(2, 4))
    assert unit_norm(torch.tensor([[torch.nan, 1.0]])).isnan().any()


def test_unit_norm_has_the_gradient_of_the_quotient():
    embeddings = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad((unit_norm(embeddings) * weights).sum(), embeddings)
    quotient = embeddings / (embeddings * embeddings).sum(-1, keepdim=True).sqrt()
    (expected,) = torch.autograd.grad((quotient * weights).sum(), embeddings)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_products_that_overflow_have_their_difference():
    embeddings = torch.tensor([[2e19, 3e19], [3e19, 2e19 + 3e12]])
    half = embeddings.double()
    expected = (half[0, 0] * half[1, 1] - half[1, 0] * half[0, 1]) / 1e4
    scores = preference_matrix(embeddings, tau=1e4)
    assert torch.isfinite(expected.float()) and expected.abs() > 1e34
    assert scores.tolist() == [[0.0, expected.float().item()], [-expected.float().item(), 0.0]]


def test_log_odds_beyond_float32_are_an_error(tokenizer):
    with pytest.raises(ValueError, match=r"beyond what torch.float32 can hold.*1e\+25"):
        preference_matrix(torch.tensor([[1e25, 0.0], [0.0, 1e25]]))
    model = scaled(1e25, normalize_embeddings=False)
    for score in (
        model.preference_scores,
        lambda *arguments: GPMScorer(model, tokenizer)(["Hi", PROMPT], [["a"], RESPONSES]),
    ):
        with pytest.raises(ValueError, match=r"^(Prompt 1: )?The log-odds are beyond"):
            score(tokenizer, PROMPT, RESPONSES)


def test_rows_that_are_nan_stay_nan():
    scores = preference_matrix(torch.tensor([[1.0], [torch.nan], [3.0]]))
    assert scores[0, 2] == -2 and scores[1].isnan().all()


@pytest.mark.parametrize("which", ["whole", "parts"])
def test_threads_score_a_model_in_training_without_dropout(tokenizer, which):
    """Every thread leaves evaluation mode for itself alone; afterwards the model trains as before."""
    torch.manual_seed(0)
    model = build_gpm(embedding_dim=4)
    for layer in model.model.layers:
        layer.mlp = torch.nn.Sequential(layer.mlp, torch.nn.Dropout(0.5))
    prompts = [f"{PROMPT} {number % 7}" for number in range(120)]
    expected = {prompt: model.preference_scores(tokenizer, prompt, RESPONSES) for prompt in prompts[:7]}
    model.train()
    model.model.layers[0].eval()

    def score(prompt):
        if which == "parts":
            with evaluation_mode(model.model):  # a part of it, as a wrapper's caller would
                pass
        return model.preference_scores(tokenizer, prompt, RESPONSES)

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(score, prompts))
    worst = max((one - expected[prompt]).abs().max().item() for prompt, one in zip(prompts, found))
    assert worst < 1e-4
    training = {name: module.training for name, module in model.named_modules()}
    assert not any(is_on for name, is_on in training.items() if name.startswith("model.layers.0"))
    assert all(is_on for name, is_on in training.items() if not name.startswith("model.layers.0"))


def test_evaluation_mode_ends_with_its_last_user():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5)).train()
    first, second = evaluation_mode(model), evaluation_mode(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not model.training and not model[0].training
    second.__exit__(None, None, None)
    assert model.training and model[0].training


def test_threads_leave_a_reward_models_padding_alone():
    """Where sequences are padded by an id of the batch's own, one thread at a time sets it."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = backbone_config(num_labels=1)
    config.pad_token_id = None
    model, tokenizer = AutoModelForSequenceClassification.from_config(config).eval(), build_tokenizer()
    scorer = RewardModelScorer(model, tokenizer)
    groups = [[*RESPONSES[: 2 + number % 2], "x" * (1 + number % 9)] for number in range(60)]
    expected = [scorer([PROMPT], [group])[0] for group in groups]
    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(lambda group: scorer([PROMPT], [group])[0], groups))
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)
    assert model.config.pad_token_id is None


def test_pair_scores_are_those_of_the_matrix():
    embeddings = unit_norm(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 1e30)
    assert pair_scores(embeddings[0], embeddings[1]) == preference_matrix(embeddings)[0, 1]


def test_a_saved_model_is_right_at_any_scale(tokenizer, tmp_path):
    scaled(1e-20).save_pretrained(tmp_path)
    expected = scaled(1.0).preference_scores(tokenizer, PROMPT, RESPONSES)
    found = GPMForPreference.from_pretrained(tmp_path).eval().preference_scores(tokenizer, PROMPT, RESPONSES)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
