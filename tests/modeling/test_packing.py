"""A prompt and its responses in one row: the states and gradients of separate sequences, and each prompt paid once."""

import copy
import importlib.util
import itertools

import pytest
import torch

from gpm_hf import GPMConfig, GPMForPreference
from gpm_hf.modeling import packed_attention_gpm, packing_obstacle
from gpm_hf.modeling.packed_attention_gpm import OwnSections
from gpm_hf.modeling.packing_gpm import share_prompts
from tests.conftest import backbone_config, build_gpm, draw_gate

PHI3_LONGROPE = {
    "original_max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
}
SEEDS = (0, 2, 3, 7)
WINDOW = {"sliding_window": 16}
ARCHITECTURES = {
    "llama": ("llama", {}),
    "llama dynamic rope": ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    "gemma": ("gemma", {}),
    "gemma3 hybrid": ("gemma3_text", {"layer_types": ["sliding_attention", "full_attention"]}),
    "gpt2": ("gpt2", {}),
    "mistral": ("mistral", {}),
    "mistral without window": ("mistral", {"sliding_window": None}),
    "mixtral": ("mixtral", {**WINDOW, "num_local_experts": 4}),
    "phi3": ("phi3", WINDOW),
    "qwen2": ("qwen2", {}),
    "qwen3 hybrid": ("qwen3", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "qwen3_moe": ("qwen3_moe", {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2}),
}


def build(architecture, **gpm_options):
    name, options = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    config = GPMConfig(text_config=backbone_config(name, **options), **{"embedding_dim": 4, **gpm_options})
    return draw_gate(GPMForPreference(config)).eval()


def draw(seed):
    """Groups of a prompt and K responses, of random lengths, shorter and longer than the window of 16."""
    generator = torch.Generator().manual_seed(seed)

    def ids(low, high):
        length = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(3, 400, (length,), generator=generator).tolist()

    count = int(torch.randint(1, 4, (), generator=generator))
    responses = int(torch.randint(2, 5, (), generator=generator))
    return [(ids(1, 60), [ids(1, 25) for _ in range(responses)]) for _ in range(count)]


def pack(groups, side="right"):
    rows = [[*prompt, *itertools.chain(*responses)] for prompt, responses in groups]
    length = max(map(len, rows)) + 2
    spare = [length - len(row) for row in rows]
    padded = [(row + [7] * n if side == "right" else [7] * n + row) for row, n in zip(rows, spare, strict=True)]
    masks = [
        ([1] * len(row) + [0] * n if side == "right" else [0] * n + [1] * len(row))
        for row, n in zip(rows, spare, strict=True)
    ]
    return {
        "input_ids": torch.tensor(padded),
        "attention_mask": torch.tensor(masks),
        "prompt_lengths": torch.tensor([len(prompt) for prompt, _ in groups]),
        "response_lengths": torch.tensor([[len(response) for response in responses] for _, responses in groups]),
    }


def separate_states(model, groups):
    """Each sequence alone, unpadded, straight from the backbone."""
    responses, prompts = [], []
    for prompt, its_responses in groups:
        for response in its_responses:
            states = model.model(torch.tensor([prompt + response]), use_cache=False).last_hidden_state[0]
            responses.append(states[-1])
            prompts.append(states[len(prompt) - 1])
    return torch.stack(responses), torch.stack(prompts)


def gradients(model, states):
    """Gradients of a fixed random function of response states and prompt states."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(part.shape, generator=generator) for part in states]
    model.zero_grad()
    sum((part * weight).sum() for part, weight in zip(states, weights, strict=True)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys() and len(found) > 5
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        assert (found[name] - gradient).norm() <= tolerance * gradient.norm(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_and_gradients_are_those_of_separate_sequences(architecture):
    original = build(architecture)
    model = copy.deepcopy(original)
    for seed in SEEDS:
        groups = draw(seed)
        expected = separate_states(original, groups)
        output = model(**pack(groups))
        assert original.model.config._attn_implementation == "sdpa"
        for found, wanted in zip((output.response_states, output.prompt_states), expected, strict=True):
            assert torch.allclose(found, wanted, atol=3e-5, rtol=1e-5)
        found = gradients(model, (output.response_states, output.prompt_states))
        assert_same_gradients(found, gradients(original, expected))
        vectors = expected[0] @ original.embedding_head.weight.T
        assert torch.allclose(output.embeddings, vectors / vectors.norm(dim=-1, keepdim=True), atol=3e-5)
        assert torch.allclose(output.scales, (expected[1] @ original.gate_head.weight.T).softmax(-1), atol=3e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3 hybrid", "mistral", "gpt2"])
@pytest.mark.parametrize("sizes", [(7, 3, 1), (5,)], ids=["ragged", "five"])
def test_many_responses_have_sections_of_their_own(architecture, sizes):
    """Groups of unequal numbers of responses, some longer than the window of 16, some prompts shorter."""
    generator = torch.Generator().manual_seed(len(sizes))

    def ids(length):
        return torch.randint(3, 400, (length,), generator=generator).tolist()

    groups = [(ids(9 + 20 * row), [ids(18 + place % 3) for place in range(size)]) for row, size in enumerate(sizes)]
    filled = [(prompt, [*own, *[[]] * (max(sizes) - len(own))]) for prompt, own in groups]
    batch = pack(filled)
    assert (batch["response_lengths"] == 0).sum() == sum(max(sizes) - size for size in sizes)
    original = build(architecture)
    model = copy.deepcopy(original)
    shared = share_prompts("sdpa", *[batch[name] for name in list(batch)[1:]], 16)
    assert isinstance(shared.plan, OwnSections)
    output = model(**batch)
    is_there = torch.tensor([bool(response) for _, own in filled for response in own])
    found = [states[is_there] for states in (output.response_states, output.prompt_states)]
    expected = separate_states(original, groups)
    for states, wanted in zip(found, expected, strict=True):
        assert torch.allclose(states, wanted, atol=3e-5, rtol=1e-5)
    assert_same_gradients(gradients(model, found), gradients(original, expected))


def test_versions_of_the_code_do_not_meet_in_one_process():
    """Whatever else has been loaded, with a model that brought its own, a model attends by its own version."""
    spec = importlib.util.spec_from_file_location("published.packed_attention_gpm", packed_attention_gpm.__file__)
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)  # registers its functions
    assert other.SUFFIX != packed_attention_gpm.SUFFIX
    groups = [(list(range(3, 12)), [list(range(20, 40))] * 3 + [[7, 8]])]
    model, batch = build("llama"), pack(groups)
    assert isinstance(share_prompts("sdpa", *[batch[name] for name in list(batch)[1:]], None).plan, OwnSections)
    for name in ("sdpa", f"sdpa{other.SUFFIX}"):  # as it is loaded, and as the other version left it
        model.config.text_config._attn_implementation = name
        assert packing_obstacle(model) is None
        states = model(**batch).response_states
        assert torch.allclose(states, separate_states(build("llama"), groups)[0], atol=3e-5, rtol=1e-5)


def test_the_drawn_groups_are_varied():
    drawn = [draw(seed) for seed in SEEDS]
    assert {len(group[0][1]) for group in drawn} == {2, 3, 4}
    prompts = [len(prompt) for groups in drawn for prompt, _ in groups]
    assert min(prompts) < 16 < max(prompts) and any(len(groups) > 1 for groups in drawn)


@pytest.mark.parametrize("architecture", ["llama", "gemma3 hybrid", "gpt2"])
def test_padding_on_the_left(architecture):
    model, groups = build(architecture), draw(2)
    right, left = model(**pack(groups)), model(**pack(groups, side="left"))
    assert torch.equal(right.embeddings, left.embeddings) and torch.equal(right.scales, left.scales)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "qwen3 hybrid", "gpt2"])
def test_gradient_checkpointing(architecture, use_reentrant):
    """Layers run again in the backward pass, when the forward that was given the packed rows is over."""
    original, groups = build(architecture), draw(2)
    model = copy.deepcopy(original)
    for dropout in (module for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        dropout.p = 0.0
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    if use_reentrant:
        model.enable_input_require_grads()
    model.train()
    runs = []
    layer = model.model.h[0] if architecture == "gpt2" else model.model.layers[0]
    (layer.ln_1 if architecture == "gpt2" else layer.input_layernorm).register_forward_hook(
        lambda *_: runs.append(torch.is_grad_enabled())
    )
    output = model(**pack(groups))
    found = gradients(model, (output.response_states, output.prompt_states))
    assert len(runs) == 2, "the layer was run a second time"
    assert_same_gradients(found, gradients(original, separate_states(original, groups)))


def test_bfloat16_autocast():
    model, groups = build("llama"), draw(2)
    exact = separate_states(model, groups)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        packed = model(**pack(groups))
        separate = separate_states(model, groups)[0]
    assert packed.embeddings.dtype == torch.float32
    error, usual = (packed.response_states - exact).norm(), (separate - exact).norm()
    assert 0 < error < 1.5 * usual
    gradients(model, (packed.response_states, packed.prompt_states))


def test_every_token_passes_once_and_padding_never():
    model, groups = build("llama"), draw(2)
    seen = []
    model.model.layers[0].mlp.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[:-1]))
    model(**pack(groups))
    assert seen == [(1, sum(len(prompt) + sum(map(len, responses)) for prompt, responses in groups))]


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3 hybrid", "gpt2"])
def test_separate_rows_are_untouched_to_the_last_bit(architecture):
    original = build(architecture)
    model = copy.deepcopy(original)
    model(**pack(draw(0)))
    assert model.model.config._attn_implementation != original.model.config._attn_implementation
    batch = pack(draw(2))
    lengths = batch.pop("response_lengths")
    assert lengths.numel() > 0
    assert torch.equal(model(**batch).embeddings, original(**batch).embeddings)
    batch["attention_mask"] = None
    assert torch.equal(model(**batch).embeddings, original(**batch).embeddings)


def test_a_model_that_packed_is_saved_as_any_other(tmp_path):
    original = build("llama")
    model = copy.deepcopy(original)
    model(**pack(draw(0)))
    model.save_pretrained(tmp_path / "packed")
    original.save_pretrained(tmp_path / "original")
    packed, plain = (tmp_path / name / "config.json" for name in ("packed", "original"))
    assert packed.read_text() == plain.read_text()
    loaded = GPMForPreference.from_pretrained(tmp_path / "packed")
    assert loaded.model.config._attn_implementation == "sdpa"


def test_lora_adapters_pack_too():
    from peft import LoraConfig, get_peft_model

    model, groups = build("llama"), draw(2)
    adapter = LoraConfig(
        task_type="FEATURE_EXTRACTION", r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False
    )
    peft_model = get_peft_model(model, adapter)
    expected = separate_states(model, groups)
    wanted = gradients(peft_model, expected)
    output = peft_model(**pack(groups))
    assert torch.allclose(output.response_states, expected[0], atol=1e-5, rtol=1e-5)
    found = gradients(peft_model, (output.response_states, output.prompt_states))
    assert all("lora" in name for name in found)
    assert_same_gradients(found, wanted)


def test_without_a_gate():
    groups = draw(1)
    for options in ({"embedding_dim": 1}, {"scale_gate": False}, {"reward_head": True}):
        model = build("llama", **options)
        packed = model(**pack(groups))
        sequences = [prompt + response for prompt, responses in groups for response in responses]
        for index, sequence in enumerate(sequences):
            alone = model(torch.tensor([sequence]), prompt_lengths=torch.tensor([1]))
            assert torch.allclose(packed.embeddings[index], alone.embeddings[0], atol=3e-5, rtol=1e-5)
        assert (packed.scales is None) == (not model.config.scale_gate)


class TestObstacles:
    def test_none_for_the_usual_backbones(self):
        assert all(packing_obstacle(build(name)) is None for name in ARCHITECTURES)

    def test_eager_attention(self):
        """Gemma 2 caps its attention scores, which SDPA cannot."""
        model = build_gpm("gemma2", embedding_dim=4)
        assert "attends by 'eager'" in packing_obstacle(model)
        with pytest.raises(ValueError, match=r"gemma2 attends by 'eager'.*one sequence a row"):
            model(**pack(draw(0)))
        assert model.model.config._attn_implementation == "eager"

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("lfm2", {"layer_types": ["conv", "full_attention"]}),
            ("mamba", {}),
        ],
    )
    def test_layers_that_do_not_attend(self, name, options):
        torch.manual_seed(0)
        config = GPMConfig(text_config=backbone_config(name, **options), embedding_dim=4)
        model = GPMForPreference(config).eval()
        assert packing_obstacle(model) is not None
        with pytest.raises(ValueError, match="Packed rows need another backbone"):
            model(**pack(draw(0)))

    def test_attention_in_both_directions(self):
        torch.manual_seed(0)
        config = backbone_config("gemma3_text", use_bidirectional_attention=True)
        model = GPMForPreference(GPMConfig(text_config=config, embedding_dim=4))
        assert "both directions" in packing_obstacle(model)

    def test_a_window_that_the_layers_keep_to_themselves(self, monkeypatch):
        model = build("mistral")
        monkeypatch.setattr(type(model.model), "_supports_flash_attn", False)
        assert "keep to themselves" in packing_obstacle(model)

    def test_a_window_that_the_configuration_does_not_name(self):
        model = build("qwen3 hybrid")
        model.model.layers[1].self_attn.sliding_window = 8
        with pytest.raises(ValueError, match="window 8, which the backbone's configuration does not name"):
            model(**pack(draw(0)))

    def test_a_backbone_that_drops_the_argument(self, monkeypatch):
        """Else its responses would see each other without an error."""
        model = build("llama")
        layer = model.model.layers[1]
        forward = layer.self_attn.forward
        monkeypatch.setattr(layer.self_attn, "forward", lambda shared_prompts=None, **options: forward(**options))
        with pytest.raises(ValueError, match="does not hand the argument `shared_prompts` on"):
            model(**pack(draw(0)))

    def test_longrope_turns_all_positions_by_the_longest(self):
        """As in the separate batch of the same sequences, on either side of the limit of 64."""
        torch.manual_seed(0)
        text_config = backbone_config("phi3", **PHI3_LONGROPE)
        model = draw_gate(GPMForPreference(GPMConfig(text_config=text_config, embedding_dim=4))).eval()
        for size in (30, 70):
            generator = torch.Generator().manual_seed(size)
            ids = torch.randint(3, 400, (size + 12,), generator=generator).tolist()
            packed = model(**pack([(ids[:size], [ids[size : size + 5], ids[size + 5 :]])]))
            rows = [ids[: size + 5], ids[:size] + ids[size + 5 :]]
            batch = torch.tensor([rows[0] + [0] * 2, rows[1]])
            mask = torch.tensor([[1] * (size + 5) + [0] * 2, [1] * (size + 7)])
            separate = model(batch, mask, torch.tensor([size, size]))
            assert torch.allclose(packed.embeddings, separate.embeddings, atol=1e-5)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("prompt_lengths", [0]), ("response_lengths", [[3, 0]]), ("response_lengths", [[3, 4]])],
    )
    def test_lengths_that_do_not_fit(self, name, value):
        batch = pack([([5, 6], [[7, 8, 9], [10]])])
        batch[name] = torch.tensor(value)
        with pytest.raises(ValueError, match="do not fit rows of"):
            build("llama")(**batch)

    @pytest.mark.parametrize("name", ["cache", "past_key_values"])
    def test_a_cache(self, name):
        from transformers import DynamicCache

        with pytest.raises(ValueError, match="can have no cache"):
            build("llama")(**pack(draw(0)), **{name: DynamicCache()})
