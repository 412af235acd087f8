"""Every causal language model of transformers as a backbone: right, right by a slower road, or refused in words."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import ElectraConfig, XLMConfig

from gpm_hf.modeling import (
    GPMConfig,
    GPMForPreference,
    merged_exactly,
    packing_obstacle,
    probing_gpm,
    sharing_obstacle,
)
from gpm_hf.modeling.loading_gpm import check_backbone
from tests.conftest import backbone_config, draw_gate

from .backbones.cells import draw_group, examine, of_groups
from .backbones.matrix import examine_apart
from .backbones.tiny import model_types

FAMILIES = (
    "bloom",
    "falcon",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "llama",
    "mamba",
    "mistral",
    "mixtral",
    "opt",
    "phi3",
    "qwen3",
)
QUICK = ("alone", "padded right", "padded left", "shared prompt", "packed", "packed gradients")
SLOW_ROADS = {
    "bloom": {"packed", "packed gradients"},
    "falcon": {"packed", "packed gradients"},
    "gemma2": {"packed", "packed gradients"},
    "mamba": {"shared prompt", "packed", "packed gradients"},
    "phi3": {"shared prompt"},
}


def faults(cells):
    return {name: cell for name, cell in cells.items() if cell["verdict"] in ("wrong", "error")}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_road_of_twelve_families(model_type):
    cells = examine(model_type, QUICK)
    assert set(cells) == {"load", *QUICK} and not faults(cells)
    assert all(cell["verdict"] != "refused" for cell in cells.values())
    slow = {name for name, cell in cells.items() if cell["verdict"] == "fallback"}
    assert slow == SLOW_ROADS.get(model_type, set())


@pytest.mark.parametrize(
    ("model_type", "said"),
    [
        ("blt", "has no `hidden_size`"),
        ("cpmant", "no causal language model: what comes after a prompt changes its states"),
        ("gemma3", "is a multimodal model"),
        ("bart", "is an encoder-decoder"),
        ("bert", "is an encoder"),
        ("trocr", "is the decoder of a larger model"),
        ("xlm", "is an encoder"),
        ("xlnet", "no causal language model: what comes after a prompt changes its states"),
    ],
)
def test_refused_in_a_sentence(model_type, said):
    cells = examine(model_type, ("alone",))
    cell = cells.get("alone", cells["load"])
    assert cell["verdict"] == "refused" and said in cell["why"]


def test_what_is_an_encoder_by_default_can_be_a_decoder():
    check_backbone("xlm", XLMConfig(causal=True))
    check_backbone("electra", ElectraConfig(is_decoder=True))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", model_types())
def test_no_type_gives_a_wrong_number_or_a_raw_error(model_type):
    assert not faults(examine_apart(model_type)["cells"])


@pytest.fixture
def unasked(monkeypatch, tmp_path):
    """As in the first process of a machine."""
    monkeypatch.setattr(probing_gpm, "_ANSWERS", {})
    monkeypatch.setenv("GPM_HF_PROBE_CACHE", str(tmp_path / "answers"))


def new_model(backbone="llama", **options):
    torch.manual_seed(0)
    return draw_gate(
        GPMForPreference(GPMConfig(text_config=backbone_config(backbone, **options), embedding_dim=4))
    ).eval()


GROUPS = [draw_group(40, (3, 9, 5)), draw_group(30, (4, 4), seed=1)]


def one_by_one(model):
    found = []
    for group in GROUPS:
        states = [model.model(torch.tensor([ids])).last_hidden_state[0] for ids in group.sequences]
        vectors = torch.nn.functional.normalize(torch.stack([s[-1] for s in states]) @ model.embedding_head.weight.T)
        found.append(vectors)
    return found


class TestProbing:
    @pytest.mark.usefixtures("unasked")
    def test_a_cache_that_is_not_read_is_not_used(self, monkeypatch):
        """A backbone that fills the cache and answers from the new tokens alone."""
        model = new_model()
        attention = model.model.layers[1].self_attn
        forward = attention.forward

        def forgetful(hidden_states, **options):
            for key in ("past_key_values", "cache"):
                if options.get(key) is not None:
                    options[key] = None
                    options["attention_mask"] = None
            return forward(hidden_states, **options)

        monkeypatch.setattr(attention, "forward", forgetful)
        assert "gives other states by a prompt in a cache" in sharing_obstacle(model)
        for (found, _), expected in zip(model.embed_groups(GROUPS), one_by_one(model), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)

    @pytest.mark.usefixtures("unasked")
    def test_attention_in_both_directions_is_refused_at_the_first_batch(self):
        model = new_model("gemma3_text", use_bidirectional_attention=True)
        with pytest.raises(ValueError, match="gemma3_text is no causal language model"):
            model(torch.tensor([[5, 6, 7]]), prompt_lengths=torch.tensor([2]))
        with pytest.raises(ValueError, match="gemma3_text is no causal language model"):
            model.embed_groups(GROUPS)

    @pytest.mark.usefixtures("unasked")
    def test_the_switch(self, monkeypatch):
        monkeypatch.setenv("GPM_HF_PROBE", "0")
        model, calls = new_model(), []
        hook = model.model.register_forward_pre_hook(lambda *given: calls.append(1))
        assert sharing_obstacle(model) is None and packing_obstacle(model) is None and not calls
        hook.remove()

    @pytest.mark.usefixtures("unasked")
    def test_one_model_asks_for_all_of_its_kind(self):
        sharing_obstacle(new_model())
        model, calls = new_model(), []
        model.model.register_forward_pre_hook(lambda *given: calls.append(1))
        assert sharing_obstacle(model) is None and not calls
        # Of another configuration it is asked anew: three passes.
        model = new_model(rms_norm_eps=1e-4)
        model.model.register_forward_pre_hook(lambda *given: calls.append(1))
        assert sharing_obstacle(model) is None and len(calls) == 3

    @pytest.mark.usefixtures("unasked")
    def test_weights_that_are_not_here_are_not_asked(self):
        with torch.device("meta"):
            model = GPMForPreference(GPMConfig(text_config=backbone_config(), embedding_dim=4))
        assert sharing_obstacle(model) is None and packing_obstacle(model) is None

    @pytest.mark.usefixtures("unasked")
    def test_asking_changes_nothing(self):
        model = new_model().train()
        state, attention = torch.get_rng_state(), model.config.text_config._attn_implementation
        assert packing_obstacle(model) is None
        assert model.training and torch.equal(state, torch.get_rng_state())
        assert model.config.text_config._attn_implementation == attention
        assert all(parameter.grad is None for parameter in model.parameters())


class TestMerging:
    def adapter(self, model):
        torch.manual_seed(1)
        options = {"r": 4, "target_modules": ["up_proj", "q_proj"], "init_lora_weights": False}
        return get_peft_model(model, LoraConfig(task_type="FEATURE_EXTRACTION", **options)).eval()

    def test_into_the_weights_it_is_the_same(self):
        adapter = self.adapter(new_model())
        expected = of_groups(adapter, GROUPS)
        for found, wanted in zip(of_groups(merged_exactly(adapter), GROUPS), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)

    def test_weights_that_are_read_past_their_layer(self):
        """As state space models do with the projection before their kernel: beside them the adapter is not seen."""
        model = new_model()
        attention = model.model.layers[1].self_attn
        original = attention.q_proj
        adapter = self.adapter(model)
        attention.__dict__["_weight_of"] = original
        attention.q_proj.forward = lambda states: torch.nn.functional.linear(states, original.weight)
        with pytest.raises(ValueError, match=r"llama would score otherwise.*Use it as it is"):
            merged_exactly(adapter)
