"""Exported models take any batch, and what cannot be asked of them is refused in words."""

import importlib.util

import pytest
import torch

from gpm_hf.modeling.cache_gpm import cache_argument
from tests.conftest import build_gpm
from tests.modeling.test_compile import IDS, MASK, OPTIONS, PROMPT_LENGTHS, assert_equal

NAMES = ["embeddings", "scales", "response_states", "prompt_states"]


def inputs(batch, length=12):
    """Rows of other lengths than the example's, padded on either side."""
    torch.manual_seed(batch)
    ids = torch.randint(5, 390, (batch, length))
    mask = torch.ones_like(ids)
    for row in range(batch):
        mask[row, : row % 3] = 0
        mask[row, length - row % 2 :] = 0
    return ids, mask, torch.arange(batch) % 4 + 1


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_torch_export_of_any_batch(options):
    model = build_gpm(**options)
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=256)
    shapes = {"input_ids": (batch, length), "attention_mask": (batch, length), "prompt_lengths": (batch,)}
    program = torch.export.export(model, (IDS, MASK, PROMPT_LENGTHS), dynamic_shapes=shapes)
    for example in (inputs(1), inputs(3), inputs(4, 7)):
        with torch.no_grad():
            assert_equal(program.module()(*example), model(*example))


class Plain(torch.nn.Module):
    """ONNX knows tensors only."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, prompt_lengths):
        return self.model(input_ids, attention_mask, prompt_lengths, return_dict=False)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_onnx_of_any_batch(tmp_path, dynamo):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    import onnxruntime

    model = build_gpm(embedding_dim=4, reward_head=True)
    path = str(tmp_path / "gpm.onnx")
    axes = {0: "batch", 1: "length"}
    names = ["input_ids", "attention_mask", "prompt_lengths"]
    dynamic = dict(zip(names, (axes, axes, {0: "batch"})))
    how = {"dynamic_axes": dynamic} if not dynamo else {"dynamic_shapes": dynamic}
    with torch.no_grad():
        torch.onnx.export(
            Plain(model),
            (IDS, MASK, PROMPT_LENGTHS),
            path,
            input_names=names,
            output_names=NAMES,
            dynamo=dynamo,
            **how,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for example in (inputs(1), inputs(3), inputs(4, 7)):
        found = session.run(NAMES, {name: value.numpy() for name, value in zip(names, example)})
        with torch.no_grad():
            expected = model(*example)
        for name, value in zip(NAMES, found):
            torch.testing.assert_close(torch.from_numpy(value), expected[name], atol=1e-4, rtol=1e-4)


def test_a_wrong_prompt_length_is_nan_where_nothing_can_be_raised():
    """In the eager model it is an error."""
    model = build_gpm(embedding_dim=4)
    with pytest.raises(ValueError, match="prompt_lengths"):
        model(IDS, MASK, PROMPT_LENGTHS * 10)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        found = compiled(IDS, MASK, torch.tensor([4, 30, 0]))
        assert found.scales.isnan().any(-1).tolist() == [False, True, True]
        torch.testing.assert_close(found.scales[0], model(IDS, MASK, PROMPT_LENGTHS).scales[0], atol=1e-5, rtol=0)


def test_return_dict():
    model = build_gpm(embedding_dim=4)
    for given, expected in zip(
        model(IDS, MASK, PROMPT_LENGTHS, return_dict=False), model(IDS, MASK, PROMPT_LENGTHS).values()
    ):
        assert torch.equal(given, expected)


@pytest.mark.parametrize("backbone", ["llama", "gpt2", "gemma2"])
def test_states_of_all_layers(backbone):
    model = build_gpm(backbone, embedding_dim=4)
    model.set_attn_implementation("eager")
    plain = model(IDS, MASK, PROMPT_LENGTHS)
    assert "hidden_states" not in plain and "attentions" not in plain
    found = model(IDS, MASK, PROMPT_LENGTHS, output_hidden_states=True, output_attentions=True)
    assert [states.shape for states in found.hidden_states] == [(3, 12, 32)] * 3
    assert [weights.shape for weights in found.attentions] == [(3, 4, 12, 12)] * 2
    # The last layer's are those that the heads read: the first row has no padding.
    assert torch.equal(found.hidden_states[-1][0, -1], found.response_states[0])


def test_input_embeddings_are_refused():
    """A prompt-tuned model's hold tokens that `prompt_lengths` does not count."""
    model = build_gpm(embedding_dim=4)
    with pytest.raises(ValueError, match="takes no `inputs_embeds`"):
        model(inputs_embeds=model.get_input_embeddings()(IDS), attention_mask=MASK, prompt_lengths=PROMPT_LENGTHS)


def test_a_gate_cannot_read_a_prompt_that_is_in_the_cache():
    from transformers import DynamicCache

    model = build_gpm(embedding_dim=4)
    cache = {cache_argument(model.model): DynamicCache(config=model.config.text_config), "use_cache": True}
    prompt = IDS[:1, :8]
    states = model(prompt, torch.ones_like(prompt), torch.tensor([8]), **cache)
    rest, mask = IDS[:1, 8:], torch.ones(1, 12, dtype=torch.long)
    with pytest.raises(ValueError, match=r"8 columns more than `input_ids`.*`prompt_states`"):
        model(rest, mask, torch.tensor([8]), **cache)
    with pytest.raises(ValueError, match="give the `attention_mask`"):
        model(rest, prompt_states=states.prompt_states, **cache)
    found = model(rest, mask, prompt_states=states.prompt_states, **cache)
    assert_equal(found, model(IDS[:1], mask, torch.tensor([8])))
