"""Every kind of preference model as log-odds matrices: grouping, empty completions, loading, refusals."""

import math

import pytest
import torch

from tests.conftest import backbone_config, build_gpm, build_tokenizer, save_backbone

PROMPTS = [[{"role": "user", "content": "Which colour?"}], "Which fruit?"]
ANSWERS = ["Red.", "Green, I think.", "Blue", "A very long answer that goes on and on, and then stops."]


@pytest.fixture
def accelerator():
    from accelerate import Accelerator

    return Accelerator(cpu=True)


def signal_of(model, accelerator, tokenizer=None, **options):
    from gpm_hf.training.preference_signal import load_preference_signal

    signal = load_preference_signal(model, tokenizer, **options)
    signal.prepare(accelerator)
    return signal


def messages(texts):
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.mark.parametrize(
    "gpm_options",
    [
        {"embedding_dim": 4},
        {"embedding_dim": 1},
        {"scale_gate": False},
        {"embedding_dim": 2, "reward_head": True},
        {"embedding_dim": 4, "reward_head": True, "scale_gate": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_matrix_of_scattered_rows(accelerator, gpm_options, prompt):
    """Two prompts interleaved, in small batches: the matrices of two separate calls."""
    gpm, tokenizer = build_gpm(**gpm_options), build_tokenizer()
    other = "Something else?"
    signal = signal_of(gpm, accelerator, tokenizer, batch_size=3)
    prompts = [prompt, other] * 4
    completions = [text for text in ANSWERS for _ in range(2)]
    if not isinstance(prompt, str):
        completions[0::2] = messages(ANSWERS)
    first, second = signal(prompts, completions, [[0, 2, 4, 6], [7, 5, 3, 1]])
    expected = gpm.preference_scores(tokenizer, [prompt, other], [ANSWERS, ANSWERS[::-1]])
    torch.testing.assert_close(first, expected[0], rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(second, expected[1], rtol=1e-4, atol=2e-4)
    assert torch.equal(first, -first.T) and first.abs().max() > 0.1


def test_empty_completions(accelerator):
    """They leave NaN rows and columns; the others are scored as if they were not there."""
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    signal = signal_of(gpm, accelerator, tokenizer)
    completions = messages(["", "Red.", " \n", "Blue"])
    completions.append([{"role": "assistant", "content": "", "tool_calls": []}])
    (scores,) = signal([PROMPTS[0]] * 5, completions, [[0, 1, 2, 3, 4]])
    expected = gpm.preference_scores(tokenizer, PROMPTS[0], ["Red.", "Blue"])
    torch.testing.assert_close(scores[[1, 3]][:, [1, 3]], expected, rtol=1e-4, atol=1e-4)
    assert scores[[0, 2, 4]].isnan().all() and scores[:, [0, 2, 4]].isnan().all()
    (scores,) = signal([PROMPTS[0]] * 2, messages(["", ""]), [[0, 1]])
    assert scores.isnan().all()


def test_grouping():
    from gpm_hf.training.preference_signal import group_by_prompt

    assert group_by_prompt(["a", "b", "a", "b"]) == [[0, 2], [1, 3]]
    assert group_by_prompt(["a", "a", "b", "b", "a", "a"], 2) == [[0, 1], [2, 3], [4, 5]]
    assert group_by_prompt([PROMPTS[0], "a", PROMPTS[0]]) == [[0, 2], [1]]
    with pytest.raises(ValueError, match="Incomplete group: 1 completions for the prompt 'b', but groups have 2"):
        group_by_prompt(["a", "a", "b"], 2)


def test_callable_gets_text_by_group(accelerator):
    calls = []

    def prefer(prompts, groups):
        calls.append((prompts, groups))
        return [[[0, 1], [-1, 0]], None]

    signal = signal_of(prefer, accelerator)
    first, second = signal(["p", "q", "p", "q"], ["1", "2", "3", "4"], [[0, 2], [3, 1]])
    assert calls == [(["p", "q"], [["1", "3"], ["4", "2"]])]
    assert first.tolist() == [[0, 1], [-1, 0]] and second.isnan().all()


@pytest.mark.parametrize(
    ("matrices", "sentence"),
    [
        ([], "returned 0 matrices for 1 groups"),
        ([[[0.0]]], r"'Which fruit\?': its matrix is of shape \(1, 1\) for 2 completions"),
        (
            [[[0.0, math.nan], [math.nan, 0.0]]],
            r"'Which fruit\?': its matrix holds NaN or infinity; a function returns None",
        ),
        ([[[0.5, 0.7], [0.3, 0.5]]], "'Which fruit.*is not skew-symmetric. It must hold log-odds"),
    ],
)
def test_callable_refused(accelerator, matrices, sentence):
    signal = signal_of(lambda prompts, groups: matrices, accelerator)
    with pytest.raises(ValueError, match=sentence):
        signal([PROMPTS[1]] * 2, ["1", "2"], [[0, 1]])


def test_nan_names_the_prompt(accelerator):
    gpm = build_gpm(embedding_dim=4)
    tokenizer = build_tokenizer()
    signal = signal_of(gpm, accelerator, tokenizer)
    with torch.no_grad():
        # Only the token of "Z" is broken, and only the second prompt has it.
        gpm.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids("Z")] = math.nan
    with pytest.raises(
        ValueError, match=r"cannot score .* the prompt 'Zebra\?': .* not finite.* check the checkpoint"
    ):
        signal(["Apple?", "Apple?", "Zebra?", "Zebra?"], ["1", "2", "3", "4"], [[0, 1], [2, 3]])


# --- loading ---------------------------------------------------------------------------------------------------------


def test_load_model_by_path(accelerator, tmp_path):
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    gpm.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = signal_of(str(tmp_path), accelerator, init_kwargs={"dtype": "bfloat16"}).scorer.model
    assert model.dtype == torch.bfloat16 and not model.training
    assert model.embedding_head.weight.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in model.parameters())
    loaded = signal_of(str(tmp_path), accelerator)
    (scores,) = loaded([PROMPTS[1]] * 4, ANSWERS, [[0, 1, 2, 3]])
    expected = gpm.preference_scores(tokenizer, PROMPTS[1], ANSWERS)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_load_adapter_by_path(accelerator, tmp_path):
    from peft import LoraConfig, get_peft_model

    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "base")
    from gpm_hf.modeling import GPMForPreference

    model = get_peft_model(
        GPMForPreference.from_pretrained(tmp_path / "base"),
        LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    model.get_base_model().save_config_and_code(tmp_path / "adapter")
    build_tokenizer().save_pretrained(tmp_path / "adapter")
    signal = signal_of(str(tmp_path / "adapter"), accelerator)
    (scores,) = signal([PROMPTS[1]] * 4, ANSWERS, [[0, 1, 2, 3]])
    expected = model.eval().preference_scores(build_tokenizer(), PROMPTS[1], ANSWERS)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    # The model object, adapter and all, gives the same.
    (scores,) = signal_of(model, accelerator, build_tokenizer())([PROMPTS[1]] * 4, ANSWERS, [[0, 1, 2, 3]])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)


def test_language_model_is_refused(accelerator, tmp_path):
    folder = save_backbone(tmp_path)
    with pytest.raises(
        ValueError, match=r"is neither a general preference model nor .*but a llama.*judges pairs is judge:"
    ):
        signal_of(folder, accelerator)


def test_checkpoint_without_heads_is_refused(accelerator, tmp_path):
    from safetensors.torch import load_file, save_file

    build_gpm(embedding_dim=4).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "head" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ValueError, match=r"holds no preference model: its checkpoint lacks .*embedding_head.weight"):
        signal_of(str(tmp_path), accelerator, build_tokenizer())


def test_reward_model_without_head_is_refused(accelerator, tmp_path):
    from transformers import AutoConfig

    folder = save_backbone(tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.architectures = ["LlamaForSequenceClassification"]
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"holds no reward model with one label: .*score.weight"):
        signal_of(folder, accelerator)


def test_classifier_of_two_labels_is_refused(accelerator):
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_config(backbone_config(num_labels=2))
    with pytest.raises(ValueError, match=r"LlamaForSequenceClassification is no preference model.*num_labels=2"):
        signal_of(model, accelerator)


def test_model_of_unknown_origin_needs_its_tokenizer(accelerator):
    with pytest.raises(ValueError, match="does not say where it was loaded from: give its tokenizer"):
        signal_of(build_gpm(), accelerator)


def test_other_refusals(accelerator):
    with pytest.raises(TypeError, match=r"A preference model is a path, .* or a function, not a int"):
        signal_of(3, accelerator)
    with pytest.raises(
        ValueError, match="`preference_model_init_kwargs` are for a preference model given by its path"
    ):
        signal_of(build_gpm(), accelerator, build_tokenizer(), init_kwargs={"dtype": "float32"})


def test_a_completion_that_is_empty_once_rendered_is_unscorable(accelerator):
    """A thinking policy may spend all its tokens on reasoning, which the preference model's template leaves out."""
    from tests.conftest import build_gpm
    from tests.modeling.chat_templates import tokenizer_for

    tokenizer = tokenizer_for("deepseek_r1_distill")
    model = build_gpm(embedding_dim=4)
    model.model.resize_token_embeddings(len(tokenizer))
    signal = signal_of(model, accelerator, tokenizer)
    prompt = [{"role": "user", "content": "Why?"}]
    texts = ["<think>a</think>", "<think>b</think>Because.", "No."]
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    (scores,) = signal([prompt] * 3, completions, [[0, 1, 2]])
    assert scores[0].isnan().all() and scores[:, 0].isnan().all()
    right = model.preference_scores(tokenizer, "Why?", ["Because.", "No."])
    torch.testing.assert_close(scores[1:, 1:], right, atol=1e-4, rtol=0)


@pytest.mark.parametrize("embedding_dim", [4, 1])
def test_samples_that_differ_in_what_is_not_read_are_equals(accelerator, embedding_dim):
    """A scorer refuses such responses of a user's; a policy samples the same answer after other reasoning."""
    from gpm_hf.scoring import GPMScorer
    from tests.modeling.chat_templates import tokenizer_for

    tokenizer = tokenizer_for("deepseek_r1_distill")
    model = build_gpm(embedding_dim=embedding_dim)
    model.model.resize_token_embeddings(len(tokenizer))
    texts = ["<think>a</think>Because.", "<think>b</think>Because.", "No."]
    with pytest.raises(ValueError, match=r"Responses 0 and 1 differ, but .* makes the same tokens of both"):
        GPMScorer(model, tokenizer)(["Why?"], [texts])
    signal = signal_of(model, accelerator, tokenizer)
    (scores,) = signal(["Why?"] * 3, messages(texts), [[0, 1, 2]])
    right = model.preference_scores(tokenizer, "Why?", ["Because.", "No."])[0, 1]
    assert scores[0, 1] == 0 and right.abs() > 0.1
    torch.testing.assert_close(scores[:2, 2], right.expand(2), atol=1e-4, rtol=0)
