"""The configuration: what it refuses, what it fills in, and what survives being written and read."""

import json

import pytest
from transformers import AutoConfig

from gpm_hf import GPMConfig
from tests.conftest import BACKBONES, backbone_config


@pytest.mark.parametrize("embedding_dim", [3, 5, 7, 0, -2, 4.0, "4"])
def test_dimension_that_is_no_number_of_blocks_is_refused(embedding_dim):
    with pytest.raises(ValueError, match=r"embedding_dim=.*even number"):
        GPMConfig(text_config=backbone_config(), embedding_dim=embedding_dim)


@pytest.mark.parametrize("option", ["scale_gate", "normalize_embeddings"])
def test_bradley_terry_refuses_gate_and_normalisation(option):
    with pytest.raises(ValueError, match=f"Bradley-Terry.*{option}"):
        GPMConfig(text_config=backbone_config(), embedding_dim=1, **{option: True})


def test_bradley_terry_refuses_a_reward_head():
    with pytest.raises(ValueError, match=r"embedding_dim=1 .*Bradley-Terry.*reward_head.*even dimension"):
        GPMConfig(text_config=backbone_config(), embedding_dim=1, reward_head=True)


@pytest.mark.parametrize(("options", "expected"), [({}, 4), ({"reward_head": True}, 6)])
def test_a_reward_head_makes_embeddings_longer_by_a_block(options, expected):
    config = GPMConfig(text_config=backbone_config(), embedding_dim=4, **options)
    assert (config.output_dim, config.embedding_dim, config.reward_head) == (expected, 4, bool(options))


@pytest.mark.parametrize(("embedding_dim", "expected"), [(1, False), (2, True), (4, True), (6, True)])
def test_none_means_gate_and_normalisation_from_dimension_two(embedding_dim, expected):
    config = GPMConfig(text_config=backbone_config(), embedding_dim=embedding_dim)
    assert (config.scale_gate, config.normalize_embeddings) == (expected, expected)
    assert config.is_bradley_terry == (embedding_dim == 1)


@pytest.mark.parametrize("option", ["scale_gate", "normalize_embeddings"])
def test_explicit_false_stays_false(option):
    config = GPMConfig(text_config=backbone_config(), embedding_dim=4, **{option: False})
    assert getattr(config, option) is False


def test_bradley_terry_accepts_explicit_false():
    config = GPMConfig(text_config=backbone_config(), embedding_dim=1, scale_gate=False, normalize_embeddings=False)
    assert config.is_bradley_terry


def test_defaults_are_the_papers():
    config = GPMConfig(text_config=backbone_config())
    assert (config.embedding_dim, config.tau, config.gate_activation) == (6, 0.1, "softmax")
    assert config.prompt_format == "clean"
    assert config.reward_head is False
    assert config.num_labels == 1


@pytest.mark.parametrize("tau", [0, 0.0, -0.1, float("nan")])
def test_temperature_must_be_positive(tau):
    with pytest.raises(ValueError, match=r"tau=.*positive"):
        GPMConfig(text_config=backbone_config(), tau=tau)


@pytest.mark.parametrize(
    ("option", "known"), [("gate_activation", "softplus"), ("prompt_format", "reference")], ids=lambda value: value
)
def test_unknown_option_names_the_known_ones(option, known):
    with pytest.raises(ValueError, match=f"{option}='nonsense'.*{known}"):
        GPMConfig(text_config=backbone_config(), **{option: "nonsense"})


def test_missing_text_config_says_how_to_start_from_a_language_model():
    with pytest.raises(ValueError, match=r"text_config.*from_backbone"):
        GPMConfig()


@pytest.mark.parametrize("name", ["pad_token_id", "bos_token_id", "eos_token_id"])
class TestTokenIds:
    """Token ids live in the text configuration and nowhere else, or two copies would come to disagree."""

    def test_read_through(self, name):
        text_config = backbone_config()
        assert getattr(GPMConfig(text_config=text_config), name) == getattr(text_config, name) is not None

    def test_write_through(self, name):
        config = GPMConfig(text_config=backbone_config())
        setattr(config, name, 17)
        assert getattr(config.text_config, name) == 17
        config_again = GPMConfig.from_dict(config.to_dict())
        assert getattr(config_again.text_config, name) == 17

    def test_change_of_the_text_config_shows(self, name):
        config = GPMConfig(text_config=backbone_config())
        setattr(config.text_config, name, 19)
        assert getattr(config, name) == 19

    def test_written_once(self, name):
        written = json.loads(GPMConfig(text_config=backbone_config()).to_json_string(use_diff=False))
        assert name not in written
        assert written["text_config"][name] == getattr(backbone_config(), name)


CHOICES = {
    "embedding_dim": 8,
    "scale_gate": False,
    "normalize_embeddings": False,
    "tau": 0.37,
    "gate_activation": "softplus",
    "prompt_format": "reference",
    "reward_head": True,
    "template_date": "2025-03-07",
}


def assert_has_choices(config):
    assert {name: getattr(config, name) for name in CHOICES} == CHOICES


@pytest.mark.parametrize("backbone", BACKBONES)
def test_round_trip_by_dict(backbone):
    config = GPMConfig(text_config=backbone_config(backbone), **CHOICES)
    again = GPMConfig.from_dict(config.to_dict())
    assert_has_choices(again)
    assert type(again.text_config) is type(config.text_config)
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("loader", [GPMConfig, AutoConfig], ids=["GPMConfig", "AutoConfig"])
def test_round_trip_by_file(backbone, loader, tmp_path):
    config = GPMConfig(text_config=backbone_config(backbone), **CHOICES)
    config.save_pretrained(tmp_path)
    again = loader.from_pretrained(tmp_path)
    assert type(again) is GPMConfig
    assert_has_choices(again)
    assert type(again.text_config) is type(config.text_config)
    expected, read = config.text_config.to_dict(), again.text_config.to_dict()
    assert {name: read[name] for name in expected} == expected


def test_text_config_may_be_a_dict():
    text_config = backbone_config("qwen3")
    config = GPMConfig(text_config=text_config.to_dict())
    assert type(config.text_config) is type(text_config)
    assert config.text_config.hidden_size == text_config.hidden_size


def test_get_text_config_finds_the_backbone():
    """DeepSpeed's "auto" sizes and TRL's hand-over of the padding token ask by this method."""
    config = GPMConfig(text_config=backbone_config())
    assert config.get_text_config() is config.text_config


class TestAttention:
    """The parent class pushes its own, absent choice of attention down to the text configuration."""

    @pytest.mark.parametrize("backbone", ["llama", "gemma2"])
    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_choice_of_the_text_config_is_kept(self, backbone, attention):
        text_config = backbone_config(backbone)
        text_config._attn_implementation = attention
        assert GPMConfig(text_config=text_config).text_config._attn_implementation == attention

    def test_choice_on_the_whole_reaches_the_backbone(self):
        config = GPMConfig(text_config=backbone_config(), attn_implementation="eager")
        assert config.text_config._attn_implementation == "eager"

    @pytest.mark.parametrize("attention", ["eager", "sdpa"])
    def test_choice_is_in_force_in_the_model(self, attention, backbone_folder):
        from gpm_hf import GPMForPreference

        model = GPMForPreference.from_backbone(backbone_folder, attn_implementation=attention)
        assert model.model.config._attn_implementation == attention

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_default_is_the_backbones_own(self, backbone):
        """Gemma 2 has no SDPA; whatever transformers gives a bare backbone, the wrapped one must have."""
        from transformers import AutoModel

        from tests.conftest import build_gpm

        alone = AutoModel.from_config(backbone_config(backbone))
        wrapped = build_gpm(backbone)
        assert wrapped.model.config._attn_implementation == alone.config._attn_implementation
