"""Whatever `iterate --scorer` takes, inside the trainers: the matrices that the scorer gives, and the loss by hand."""

import pytest
import torch

from gpm_hf.scoring import GPMScorer, PairCompletionScorer, load_scorer
from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.evaluation.scorers import FunctionScorer
from tests.scoring.models import build_language_model, save_every_kind
from tests.training.by_hand import checked_trainer
from tests.training.online import make_trainer, prefer_by_text, skew

QUESTION = [{"role": "user", "content": "Which colour?"}]
OTHER = "Which fruit?"
ANSWERS = ["Red.", "Green, I think.", "Blue", "A long answer, and then it stops."]
FUNCTION = "function:tests.training.online.prefer_by_text"
KINDS = ["gpm:gpm", "gpm:bt", "reward:reward", "pair:pair", "judge:judge", "gpm", "reward", FUNCTION, "random:3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    save_every_kind(folder)
    return folder


def described(folder, kind):
    """The description of a scorer, with its model's folder for the model's name."""
    prefix, colon, name = kind.rpartition(":")
    return f"{prefix}{colon}{folder / name}" if (folder / name).is_dir() else kind


def signal_of(source, *arguments, **options):
    from accelerate import Accelerator

    from gpm_hf.training.preference_signal import load_preference_signal

    signal = load_preference_signal(source, *arguments, **options)
    signal.prepare(Accelerator(cpu=True))
    return signal


def check(signal, score):
    """Two groups in scattered rows, one with an answer without text, against `score(prompts, groups)` of the rest."""
    completions = [[{"role": "assistant", "content": text}] for text in (*ANSWERS[:2], " ", *ANSWERS[2:])]
    prompts, texts = [QUESTION, OTHER] * 5, [text for pair in zip(completions, ["x", *ANSWERS]) for text in pair]
    first, second = signal(prompts, texts, [[0, 2, 4, 6, 8], [9, 7, 5, 3, 1]])
    kept = [0, 1, 3, 4]
    expected = score([QUESTION, OTHER], [[completions[i] for i in kept], [*ANSWERS[::-1], "x"]])
    torch.testing.assert_close(first[kept][:, kept], expected[0], rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(second, expected[1], rtol=1e-4, atol=2e-4)
    assert first[2].isnan().all() and first[:, 2].isnan().all()
    assert expected[0].abs().max() > 0.01 and torch.equal(second, -second.T)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != FUNCTION])
def test_matrices_of_every_description(folder, kind):
    spec = described(folder, kind)
    options = {} if kind.startswith("random") else {"device": "cpu"}
    check(signal_of(spec, batch_size=3), load_scorer(spec, **options))


def test_matrices_of_models_and_scorers():
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    check(signal_of(gpm, tokenizer), GPMScorer(gpm, tokenizer))
    check(signal_of(GPMScorer(gpm, tokenizer, batch_size=2)), GPMScorer(gpm, tokenizer))
    judge = PairCompletionScorer(build_language_model(), tokenizer, template="{prompt}: {a}, or {b}?")
    check(signal_of(judge), judge)


def test_a_function_reads_answers_without_text():
    """By its name as well; and so does a scorer of someone's own."""
    texts = ["one", "", "three"]
    expected = torch.tensor([[skew(a, b) for b in texts] for a in texts])
    for source in (FUNCTION, prefer_by_text, FunctionScorer(lambda prompt, a, b: skew(a, b))):
        (scores,) = signal_of(source)([OTHER] * 3, texts, [[0, 1, 2]])
        torch.testing.assert_close(scores, expected)


def test_options_of_a_description(folder):
    """They are the scorer's own, and the refusals too."""
    options = {"both_orders": False, "template": "{prompt} {a} {b}"}
    spec = described(folder, "judge:judge")
    signal = signal_of(spec, init_kwargs=options)
    (scores,) = signal([OTHER] * 2, ANSWERS[:2], [[0, 1]])
    expected = load_scorer(spec, device="cpu", **options)([OTHER], [ANSWERS[:2]])[0]
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"'random' has no model, so \['dtype'\] mean nothing to it"):
        signal_of("random", init_kwargs={"dtype": "float32"})
    with pytest.raises(ValueError, match=r"The module tests.training.online has no nothing"):
        signal_of("function:tests.training.online.nothing")
    with pytest.raises(ValueError, match=r"describes no scorer\. Give gpm:NAME"):
        signal_of("scorer:x")
    both = signal_of(spec, init_kwargs={"average": False})
    with pytest.raises(ValueError, match=r"cannot score .* prompt 'Which fruit\?': its matrix is not skew-symmetric"):
        both([OTHER] * 2, ANSWERS[:2], [[0, 1]])


@pytest.mark.parametrize("kind", ["gpm:gpm", "reward:reward", "pair:pair", "judge:judge"])
def test_loss_and_gradient_by_hand(tmp_path, folder, kind, double):
    """A step on a scorer's matrices is the formula's on the matrices that the scorer gives elsewhere."""
    from transformers import AutoModelForCausalLM

    spec = described(folder, kind)
    scorer = load_scorer(spec, device="cpu", dtype="float64")
    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"), dtype=double)
    trainer = make_trainer(
        tmp_path,
        policy,
        spec,
        trainer_class=checked_trainer(lambda prompt, texts: scorer([prompt], [texts])[0].tolist()),
        num_iterations=2,
        max_steps=2,
        learning_rate=0.004,
        preference_model_init_kwargs={"dtype": "float64"},
    )
    trainer.prepare_check()
    trainer.train()
    worst = {name: max(check[name] for check in trainer.checks) for name in trainer.checks[0]}
    print(kind, worst)
    assert len(trainer.checks) == 2
    assert worst["loss"] < 1e-5 and worst["gradient"] < 1e-5
    # The folder's own name, without where it lies.
    assert trainer._preference_name == f"`{kind}`"


def test_the_prompt_is_encoded_once():
    """K = 8 answers to a long prompt: its tokens pass the backbone once, and the numbers are those of each alone."""
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    prompt = [{"role": "user", "content": "Which of them is best? " * 8}]
    answers = [f"{text} {number}" for number in range(2) for text in ANSWERS]
    signal = signal_of(gpm, tokenizer)
    tokens = []
    hook = gpm.model.embed_tokens.register_forward_pre_hook(lambda module, inputs: tokens.append(inputs[0].numel()))
    (scores,) = signal([prompt] * 8, answers, [list(range(8))])
    hook.remove()
    start = len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
    rows, read = [], 0
    for answer in answers:
        ids = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}])["input_ids"]
        read += len(ids)
        with torch.no_grad():
            rows.append(gpm(torch.tensor([ids]), prompt_lengths=torch.tensor([start])))
    scales = rows[0].scales[0]
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            v, w = one.embeddings[0], other.embeddings[0]
            expected = sum(scales[k] * (v[2 * k] * w[2 * k + 1] - v[2 * k + 1] * w[2 * k]) for k in range(2)) / 0.1
            assert scores[i, j].item() == pytest.approx(expected.item(), abs=2e-4)
    assert sum(tokens) < 0.4 * read and tokens[0] == start
