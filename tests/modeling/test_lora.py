"""LoRA through PEFT: what is trained is saved, loads back, and merges; on a language model and on a saved GPM."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from gpm_hf import GPMForPreference, load_preference_model, pair_scores
from tests.conftest import draw_gate, save_backbone

PROMPT = "What is the capital of France?"
RESPONSES = ["Paris.", "A city on the river Seine", "Bake it in a hot oven"]
TARGETS = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"]}
CASES = {
    "on a language model": {"backbone": "llama", "saved": False},
    "on a saved GPM": {"backbone": "llama", "saved": True},
    "on a saved GPM without gate": {"backbone": "llama", "saved": True, "scale_gate": False},
    "on GPT-2": {"backbone": "gpt2", "saved": False},
    "with a reward head": {"backbone": "llama", "saved": False, "reward_head": True},
    "on a saved GPM with a reward head": {"backbone": "llama", "saved": True, "reward_head": True},
}


def train_two_steps(model):
    """Plain SGD; after the first step B has left zero, after the second A has moved as well."""
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    ids = torch.tensor([[5, 60, 70, 80, 90], [9, 61, 71, 81, 91]])
    for _ in range(2):
        optimizer.zero_grad()
        output = model(input_ids=ids, prompt_lengths=torch.tensor([2, 2]))
        scales = None if output.scales is None else output.scales[0]
        torch.nn.functional.softplus(-pair_scores(*output.embeddings, scales, 0.1) + 5).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
    model.eval()


def scores_of(model, tokenizer):
    return model.preference_scores(tokenizer, PROMPT, RESPONSES)


class Trained:
    def __init__(self, root, tokenizer, backbone, saved, **options):
        self.base = save_backbone(root / "lm", backbone)
        torch.manual_seed(2)
        model = draw_gate(GPMForPreference.from_backbone(self.base, embedding_dim=4, **options))
        if saved:
            self.base = str(root / "gpm")
            model.save_pretrained(self.base)
            model = GPMForPreference.from_pretrained(self.base)
        self.before = {name: value.clone() for name, value in model.state_dict().items()}
        self.scores_before = scores_of(model, tokenizer)
        heads = list(model.heads())
        config = LoraConfig(
            task_type="FEATURE_EXTRACTION",
            r=4,
            target_modules=TARGETS[backbone],
            modules_to_save=heads,
            fan_in_fan_out=backbone == "gpt2",
        )
        self.model = get_peft_model(model, config)
        self.initial = {name: value.clone() for name, value in self.model.named_parameters()}
        train_two_steps(self.model)
        self.folder = str(root / "adapter")
        self.model.save_pretrained(self.folder)
        self.model.get_base_model().save_config_and_code(self.folder)
        self.scores = scores_of(self.model, tokenizer)
        self.heads = heads


@pytest.fixture(scope="module", params=CASES, ids=lambda name: name.replace(" ", "-"))
def trained(request, tmp_path_factory, tokenizer):
    return Trained(tmp_path_factory.mktemp("lora"), tokenizer, **CASES[request.param])


class TestTraining:
    def test_adapters_and_heads_moved(self, trained):
        moved = {
            name: not torch.equal(value, trained.initial[name])
            for name, value in trained.model.named_parameters()
            if value.requires_grad
        }
        for kind in ("lora_A", "lora_B", *(f"{head}.modules_to_save" for head in trained.heads)):
            of_kind = [name for name in moved if kind in name]
            assert of_kind
            assert all(moved[name] for name in of_kind), kind
        assert (trained.scores - trained.scores_before).abs().max() > 1e-2

    def test_backbone_did_not_move(self, trained):
        for name, value in trained.model.named_parameters():
            if not value.requires_grad:
                assert torch.equal(value, trained.initial[name]), name

    def test_heads_are_float32(self, trained):
        for name, value in trained.model.named_parameters():
            if "modules_to_save" in name:
                assert value.dtype == torch.float32


class TestReload:
    def test_log_odds_are_equal(self, trained, tokenizer):
        model = load_preference_model(trained.folder)
        assert isinstance(model, PeftModel)
        assert not model.training
        torch.testing.assert_close(scores_of(model, tokenizer), trained.scores, atol=1e-6, rtol=0)

    def test_log_odds_do_not_depend_on_the_random_state(self, trained, tokenizer):
        """A head that is not in the adapter would be drawn anew."""
        results = []
        for seed in range(2):
            torch.manual_seed(seed)
            results.append(scores_of(load_preference_model(trained.folder), tokenizer))
        assert torch.equal(*results)

    def test_merged_log_odds_are_equal(self, trained, tokenizer):
        merged = load_preference_model(trained.folder).merge_and_unload()
        assert isinstance(merged, GPMForPreference)
        torch.testing.assert_close(scores_of(merged, tokenizer), trained.scores, atol=3e-4, rtol=0)

    def test_merged_model_saves_as_an_ordinary_one(self, trained, tokenizer, tmp_path):
        merged = load_preference_model(trained.folder).merge_and_unload()
        merged.save_pretrained(tmp_path)
        again = load_preference_model(str(tmp_path))
        assert isinstance(again, GPMForPreference)
        assert again.state_dict().keys() == trained.before.keys()
        assert torch.equal(scores_of(again, tokenizer), scores_of(merged, tokenizer))
        torch.testing.assert_close(scores_of(again, tokenizer), trained.scores, atol=3e-4, rtol=0)

    def test_adapter_off_is_the_base_with_its_own_heads(self, trained, tokenizer):
        """The heads of a language model's adapter are new, so only a saved GPM has something to come back to."""
        model = load_preference_model(trained.folder)
        if trained.base.endswith("gpm"):
            with model.disable_adapter():
                torch.testing.assert_close(scores_of(model, tokenizer), trained.scores_before, atol=1e-6, rtol=0)

    def test_bfloat16_keeps_float32_heads(self, trained, tokenizer):
        model = load_preference_model(trained.folder, dtype=torch.bfloat16)
        heads = {name: value for name, value in model.named_parameters() if "modules_to_save" in name}
        assert {value.dtype for value in heads.values()} == {torch.float32}
        for name, value in heads.items():
            assert torch.equal(value, dict(trained.model.named_parameters())[name])


class TestFolder:
    def test_holds_adapters_and_heads_only(self, trained):
        names = set(load_file(Path(trained.folder) / "adapter_model.safetensors"))
        heads = {name for name in names if "lora_" not in name}
        assert heads == {f"base_model.model.{head}.weight" for head in trained.heads}
        assert len(names) > len(heads)

    def test_is_small(self, trained):
        adapter = (Path(trained.folder) / "adapter_model.safetensors").stat().st_size
        base = (Path(trained.base) / "model.safetensors").stat().st_size
        assert adapter < base / 3
        assert [path.name for path in Path(trained.folder).glob("*.safetensors")] == ["adapter_model.safetensors"]

    def test_has_configuration_and_code(self, trained):
        folder = Path(trained.folder)
        config = json.loads((folder / "config.json").read_text())
        assert config["model_type"] == "gpm"
        assert config["embedding_dim"] == 4
        assert config["auto_map"]["AutoModel"] == "modeling_gpm.GPMForPreference"
        for name in ("configuration_gpm.py", "encoding_gpm.py", "modeling_gpm.py", "scores_gpm.py"):
            assert (folder / name).is_file()

    def test_no_path_in_the_configuration(self, trained):
        """PEFT's own file must name the base; the configuration of the model need not."""
        assert trained.base not in (Path(trained.folder) / "config.json").read_text()

    def test_names_its_base(self, trained):
        config = json.loads((Path(trained.folder) / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == trained.base
