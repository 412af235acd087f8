"""General preference models and Bradley-Terry models as scorers."""

import pytest
import torch

from gpm_hf.scoring import GPMScorer
from tests.conftest import build_gpm, build_tokenizer
from tests.scoring.models import BATCHES, GROUPS, PROMPTS, build_llama_classifier, chat_text


@pytest.fixture(scope="module")
def bradley_terry():
    return build_gpm(embedding_dim=1)


def by_hand(model, tokenizer, prompt, first, second):
    """The log-odds of a pair from two unpadded forward passes and the formula of section 4, block by block."""
    size = len(tokenizer(chat_text(prompt))["input_ids"])
    outputs = []
    for response in (first, second):
        ids = torch.tensor([tokenizer(chat_text(prompt, response))["input_ids"]])
        with torch.no_grad():
            outputs.append(model(ids, prompt_lengths=torch.tensor([size])))
    v, w = (output.embeddings[0].double() for output in outputs)
    if len(v) == 1:
        return float(v - w) / model.config.tau
    scales = outputs[0].scales[0].double()
    return sum(float(s * (v[2 * k] * w[2 * k + 1] - v[2 * k + 1] * w[2 * k])) for k, s in enumerate(scales)) / 0.1


@pytest.mark.parametrize("kind", ["gpm", "bradley_terry"])
def test_by_hand(kind, request, tokenizer):
    model = request.getfixturevalue(kind)
    scorer = GPMScorer(model, tokenizer)
    for prompt, responses, scores in zip(PROMPTS, GROUPS, scorer(PROMPTS, GROUPS)):
        for i, first in enumerate(responses):
            for j, second in enumerate(responses):
                # tau = 0.1: an error of the backbone's float32 is ten times as large in the log-odds.
                assert float(scores[i, j]) == pytest.approx(by_hand(model, tokenizer, prompt, first, second), abs=4e-4)
    assert scorer.forward_passes == 9
    assert scorer.asymmetry == 0.0


@pytest.mark.parametrize("kind", ["gpm", "bradley_terry"])
def test_batch_size_and_padding_side(kind, request):
    """Embeddings of unit norm to 4e-5 in the log-odds; rewards to 4e-5, which tau = 0.1 makes 4e-4 in the log-odds."""
    model = request.getfixturevalue(kind)
    expected = GPMScorer(model, build_tokenizer())(PROMPTS, GROUPS)
    atol = 4e-5 if model.config.normalize_embeddings else 4e-5 / model.config.tau
    for batch_size, side in BATCHES:
        tokenizer = build_tokenizer(pad_is_eos=True, padding_side=side)
        scorer = GPMScorer(model, tokenizer, batch_size=batch_size)
        for matrix, other in zip(scorer(PROMPTS, GROUPS), expected):
            assert torch.allclose(matrix, other, rtol=0, atol=atol)
            assert torch.equal(matrix, -matrix.T)
        assert scorer.asymmetry == 0.0


def test_token_budget(gpm, tokenizer):
    expected = GPMScorer(gpm, tokenizer)(PROMPTS, GROUPS)
    for max_batch_tokens in (1, 60, 10_000):
        scorer = GPMScorer(gpm, tokenizer, max_batch_tokens=max_batch_tokens)
        for matrix, other in zip(scorer(PROMPTS, GROUPS), expected):
            assert torch.allclose(matrix, other, rtol=0, atol=4e-5)
        assert scorer.forward_passes == 9


def test_a_long_prompt_is_encoded_once(gpm, tokenizer):
    """And counted as often as it has responses, as another model would encode it."""
    prompt, responses = "Tell me about bread. " * 6, ["Mix flour.", "No.", "Bake it in a hot oven."]
    tokens = []
    hook = gpm.model.register_forward_pre_hook(lambda _, given: tokens.append(given[0].numel()))
    try:
        scorer = GPMScorer(gpm, tokenizer)
        scores = scorer([prompt], [responses])[0]
    finally:
        hook.remove()
    assert tokens[0] == len(tokenizer(chat_text(prompt))["input_ids"]) and len(tokens) == 2
    assert scorer.forward_passes == 3
    assert float(scores[0, 2]) == pytest.approx(by_hand(gpm, tokenizer, prompt, responses[0], responses[2]), abs=5e-5)


def test_many_chunks_keep_the_order(gpm, tokenizer):
    """Many batches, sorted by length, and the matrices in the prompts' order."""
    prompts, groups = PROMPTS * 12, [[*group, *group] for group in GROUPS * 12]
    expected = GPMScorer(gpm, tokenizer, batch_size=1000)(prompts, groups)
    scorer = GPMScorer(gpm, tokenizer, batch_size=1)
    for matrix, other in zip(scorer(prompts, groups), expected):
        assert torch.allclose(matrix, other, rtol=0, atol=4e-5)
    assert scorer.forward_passes == 9 * 2 * 12


def test_prompt_encoded_alone_counts(gpm, plain_tokenizer):
    """A response that merges with the prompt's last token: the gate reads the prompt in a sequence of its own."""
    scorer = GPMScorer(gpm, plain_tokenizer)
    scorer(["The answer is "], [["red", "green"]])
    assert scorer.forward_passes == 3
    scorer(["What?"], [[" Red", " Green"]])
    assert scorer.forward_passes == 3 + 2


def test_from_a_folder(gpm, tmp_path, tokenizer):
    gpm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = GPMScorer(str(tmp_path), device="cpu", dtype=torch.float32)
    for matrix, other in zip(scorer(PROMPTS, GROUPS), GPMScorer(gpm, tokenizer)(PROMPTS, GROUPS)):
        assert torch.equal(matrix, other)
    assert scorer.name == str(tmp_path)
    assert GPMScorer(str(tmp_path), dtype=torch.bfloat16, name="mine", device="cpu").model.dtype == torch.bfloat16


def test_a_sequence_that_is_too_long(gpm, tokenizer):
    scorer = GPMScorer(gpm, tokenizer)
    with pytest.raises(ValueError, match=r"Prompt 1: the prompt with a response has \d+ tokens, more than the 256"):
        scorer(["x", "y"], [["a", "b"], ["a", "b " * 300]])
    assert scorer.forward_passes == 0


def test_template_that_cannot_render(gpm, tokenizer):
    with pytest.raises(ValueError, match=r"Prompt 1: The chat template cannot render"):
        GPMScorer(gpm, tokenizer)(["x", [{"role": "tool", "content": "y"}]], [["a"], ["b"]])


def test_other_models_are_refused(gpm, tokenizer):
    with pytest.raises(ValueError, match=r"LlamaForSequenceClassification is no GPMForPreference.*RewardModelScorer"):
        GPMScorer(build_llama_classifier(), tokenizer)
    with pytest.raises(ValueError, match="does not say where it was loaded from"):
        GPMScorer(gpm)
    with pytest.raises(ValueError, match=r"\['dtype'\] are for a model given by its name"):
        GPMScorer(gpm, tokenizer, dtype="float32")


def test_weights_with_nan(tokenizer):
    model = build_gpm(embedding_dim=4)
    with torch.no_grad():
        model.embedding_head.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match="Prompt 0: the model's embeddings are not finite"):
        GPMScorer(model, tokenizer)(["x"], [["a", "b"]])
