"""Which loader takes what: saved models, adapters, language models, folders with a GGUF file, and wrong folders."""

import json
import shutil

import pytest
import torch

from gpm_hf import GPMForPreference, load_preference_model, load_tokenizer
from gpm_hf.scoring import load_or_start_preference_model
from gpm_hf.scoring.preference_model import check_gpm_options, with_gguf_file
from tests.conftest import build_gpm, build_tokenizer

OPTIONS = {"embedding_dim": 4, "scale_gate": None, "tau": 0.2}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A saved preference model with its tokenizer: its folder and itself."""
    folder = tmp_path_factory.mktemp("saved")
    model = build_gpm(embedding_dim=4, tau=0.2)
    model.save_pretrained(folder)
    build_tokenizer(bos=True).save_pretrained(folder)
    return str(folder), model


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory, backbone_folder):
    from peft import LoraConfig, get_peft_model

    folder = str(tmp_path_factory.mktemp("adapter"))
    model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4)
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], modules_to_save=["embedding_head", "gate_head"]
    )
    model = get_peft_model(model, config)
    model.save_pretrained(folder)
    model.get_base_model().save_config_and_code(folder)
    return folder


class TestLoadPreferenceModel:
    def test_saved_model(self, saved):
        folder, model = saved
        loaded = load_preference_model(folder)
        assert type(loaded) is GPMForPreference
        assert not loaded.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name])

    def test_options_reach_from_pretrained(self, saved):
        loaded = load_preference_model(saved[0], dtype=torch.bfloat16, attn_implementation="eager")
        assert loaded.dtype == torch.bfloat16
        assert loaded.model.config._attn_implementation == "eager"

    @pytest.mark.parametrize("trust", [True, False])
    def test_trust_remote_code_may_be_given(self, saved, trust):
        """Scripts pass it along; with this package installed no remote code is needed."""
        assert load_preference_model(saved[0], trust_remote_code=trust).config.embedding_dim == 4

    def test_adapter(self, adapter_folder):
        from peft import PeftModel

        loaded = load_preference_model(adapter_folder)
        assert isinstance(loaded, PeftModel)
        assert not loaded.training

    def test_adapter_without_model_configuration(self, adapter_folder, tmp_path):
        """An adapter of some other training: without our config.json nothing says what the heads are."""
        folder = tmp_path / "adapter"
        shutil.copytree(adapter_folder, folder)
        (folder / "config.json").unlink()
        with pytest.raises(ValueError, match="holds no general preference model"):
            load_preference_model(str(folder))

    def test_adapter_without_its_reward_head(self, backbone_folder, tmp_path):
        from peft import LoraConfig, get_peft_model

        model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4, reward_head=True)
        heads = ["embedding_head", "gate_head"]
        lora = LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], modules_to_save=heads)
        get_peft_model(model, lora).save_pretrained(tmp_path)
        model.save_config_and_code(tmp_path)
        with pytest.raises(ValueError, match=r"without \['reward_head'\]"):
            load_preference_model(str(tmp_path))

    def test_adapter_without_heads(self, backbone_folder, tmp_path):
        from peft import LoraConfig, get_peft_model

        model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4)
        model = get_peft_model(model, LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["q_proj"]))
        model.save_pretrained(tmp_path)
        model.get_base_model().save_config_and_code(tmp_path)
        with pytest.raises(ValueError, match="embedding_head"):
            load_preference_model(str(tmp_path))

    def test_language_model(self, backbone_folder):
        with pytest.raises(ValueError, match=r"is a llama language model, not a preference model.*reward\.py"):
            load_preference_model(backbone_folder)

    def test_folder_without_anything(self, tmp_path):
        with pytest.raises((OSError, ValueError), match=str(tmp_path)):
            load_preference_model(str(tmp_path))

    def test_folder_that_does_not_exist(self, tmp_path):
        with pytest.raises((OSError, ValueError), match=f"{tmp_path}/nowhere"):
            load_preference_model(f"{tmp_path}/nowhere")

    def test_hub_name_that_is_nowhere(self):
        with pytest.raises(OSError, match=r"couldn't connect|not a valid model identifier"):
            load_preference_model("nobody/no-such-model")


class TestLoadOrStart:
    def test_language_model_starts_a_new_one(self, backbone_folder):
        model, is_new = load_or_start_preference_model(backbone_folder, OPTIONS)
        assert type(model) is GPMForPreference and is_new
        assert (model.config.embedding_dim, model.config.scale_gate, model.config.tau) == (4, True, 0.2)

    def test_saved_model_goes_on(self, saved):
        folder, model = saved
        loaded, is_new = load_or_start_preference_model(folder, OPTIONS)
        assert torch.equal(loaded.embedding_head.weight, model.embedding_head.weight) and not is_new

    def test_none_means_as_it_is(self, saved):
        loaded, _ = load_or_start_preference_model(saved[0], {"embedding_dim": None, "tau": None})
        assert (loaded.config.embedding_dim, loaded.config.tau) == (4, 0.2)

    @pytest.mark.parametrize(("name", "value"), [("embedding_dim", 6), ("scale_gate", False), ("tau", 0.1)])
    def test_saved_model_refuses_other_settings(self, saved, name, value):
        with pytest.raises(ValueError, match=rf"already is a preference model with {{'{name}'.*{{'{name}': {value}}}"):
            load_or_start_preference_model(saved[0], {**OPTIONS, name: value})

    def test_adapter_is_to_be_merged_first(self, adapter_folder):
        with pytest.raises(ValueError, match=r"LoRA adapter.*merge_and_unload"):
            load_or_start_preference_model(adapter_folder, OPTIONS)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_dtype(self, saved, backbone_folder, dtype):
        for folder in (saved[0], backbone_folder):
            model, _ = load_or_start_preference_model(folder, OPTIONS, dtype=dtype)
            assert model.dtype == dtype
            assert model.embedding_head.weight.dtype == torch.float32

    def test_trust_remote_code_may_be_given(self, saved, backbone_folder):
        for folder in (saved[0], backbone_folder):
            assert load_or_start_preference_model(folder, OPTIONS, trust_remote_code=True)[0].config.embedding_dim == 4


def test_check_gpm_options_names_only_what_differs():
    config = build_gpm(embedding_dim=4).config
    check_gpm_options(config, {"embedding_dim": 4, "tau": None, "scale_gate": True}, "It")
    with pytest.raises(ValueError, match="It already is") as error:
        check_gpm_options(config, {"embedding_dim": 4, "tau": 0.7}, "It")
    assert "embedding_dim" not in str(error.value)


class TestLoadTokenizer:
    def test_beside_a_saved_model(self, saved):
        tokenizer = load_tokenizer(saved[0])
        expected = build_tokenizer(bos=True)
        assert tokenizer.chat_template == expected.chat_template
        assert tokenizer("Red, green")["input_ids"] == expected("Red, green")["input_ids"]

    def test_beside_a_language_model(self, backbone_folder):
        assert load_tokenizer(backbone_folder).eos_token == "<eos>"

    def test_where_there_is_none(self, tmp_path):
        build_gpm(embedding_dim=4).save_pretrained(tmp_path)
        with pytest.raises((OSError, ValueError), match=str(tmp_path)):
            load_tokenizer(str(tmp_path))


class TestGGUFFolder:
    def test_the_only_file_is_taken(self, tmp_path):
        (tmp_path / "model.gguf").touch()
        (tmp_path / "README.md").touch()
        options = {"dtype": "float32"}
        assert with_gguf_file(str(tmp_path), options) == {"dtype": "float32", "gguf_file": "model.gguf"}
        assert options == {"dtype": "float32"}

    def test_several_files_need_a_choice(self, tmp_path):
        for name in ("a.gguf", "b.gguf"):
            (tmp_path / name).touch()
        with pytest.raises(ValueError, match=r"\['a.gguf', 'b.gguf'\].*gguf_file"):
            with_gguf_file(str(tmp_path), {})
        assert with_gguf_file(str(tmp_path), {"gguf_file": "b.gguf"}) == {"gguf_file": "b.gguf"}

    def test_a_folder_with_a_configuration_is_no_gguf_folder(self, tmp_path):
        (tmp_path / "model.gguf").touch()
        (tmp_path / "config.json").write_text(json.dumps({}))
        assert with_gguf_file(str(tmp_path), {}) == {}

    def test_a_hub_name_is_no_folder(self):
        assert with_gguf_file("nobody/no-such-model", {}) == {}
