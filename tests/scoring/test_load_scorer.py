"""What a user types, and which scorer comes of it."""

import sys

import pytest
import torch

from gpm_hf.modeling import GPMForPreference
from gpm_hf.scoring import (
    ConstantScorer,
    GPMScorer,
    PairClassifierScorer,
    PairCompletionScorer,
    RandomScorer,
    RewardModelScorer,
    load_scorer,
)
from tests.conftest import build_tokenizer
from tests.scoring.models import save_every_kind


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_every_kind(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize(
    ("kind", "of", "expected"),
    [
        ("gpm:", "gpm", GPMScorer),
        ("gpm:", "bt", GPMScorer),
        ("reward:", "reward", RewardModelScorer),
        ("pair:", "pair", PairClassifierScorer),
        ("judge:", "judge", PairCompletionScorer),
        ("", "gpm", GPMScorer),
        ("", "bt", GPMScorer),
        ("", "reward", RewardModelScorer),
    ],
)
def test_kinds(folders, kind, of, expected):
    scorer = load_scorer(kind + folders[of], device="cpu", batch_size=3, dtype=torch.float32, name="mine")
    assert type(scorer) is expected
    assert scorer.name == "mine"
    assert scorer(["x"], [["a", "b"]])[0].shape == (2, 2)
    assert scorer.forward_passes == 2


def test_options_of_the_scorer(folders):
    assert load_scorer("reward:" + folders["reward"], temperature=2.0, device="cpu").temperature == 2.0
    assert load_scorer("pair:" + folders["pair"], both_orders=False, device="cpu").asymmetry is None
    with pytest.raises(TypeError, match="no_such_option"):
        load_scorer("reward:" + folders["reward"], no_such_option=1)
    with pytest.raises(ValueError, match="either `device` or `device_map`"):
        load_scorer("reward:" + folders["reward"], device="cpu", device_map="cpu")


def test_adapter(backbone_folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4)
    modules = ["embedding_head", "gate_head"]
    config = LoraConfig(task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], modules_to_save=modules)
    model = get_peft_model(model, config).eval()
    model.save_pretrained(tmp_path)
    model.get_base_model().save_config_and_code(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    scorer = load_scorer(str(tmp_path), device="cpu")
    assert type(scorer) is GPMScorer
    expected = GPMScorer(model, build_tokenizer())(["x"], [["a", "b"]])[0]
    assert torch.allclose(scorer(["x"], [["a", "b"]])[0], expected, rtol=0, atol=1e-5)


def test_floors():
    assert type(load_scorer("constant")) is ConstantScorer
    assert load_scorer("constant", name="ties").name == "ties"
    assert type(load_scorer("random")) is RandomScorer
    assert load_scorer("random:7").seed == 7
    for spec in ("random:x", "random:", "constant:3"):
        with pytest.raises(ValueError, match="describes no scorer"):
            load_scorer(spec)
    with pytest.raises(ValueError, match=r"\['batch_size'\] mean nothing"):
        load_scorer("random", batch_size=3)


@pytest.mark.parametrize("spec", ["gpm:", "best:x"])
def test_no_scorer(spec):
    with pytest.raises(ValueError, match=r"describes no scorer. Give gpm:NAME, reward:NAME, pair:NAME, judge:NAME"):
        load_scorer(spec)


def test_no_string(gpm):
    with pytest.raises(ValueError, match="described by a string, got a GPMForPreference"):
        load_scorer(gpm)


def test_neither_kind(folders, tmp_path):
    with pytest.raises(ValueError, match=r"neither a general preference model nor .* a llama .*judge:.*reward\.py"):
        load_scorer(folders["judge"])
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        load_scorer(str(tmp_path))
    with pytest.raises((OSError, ValueError), match="nowhere is neither a folder that exists nor a Hub id"):
        load_scorer(f"{tmp_path}/deep/nowhere")
    (tmp_path / "model.gguf").touch()
    with pytest.raises(ValueError, match=r"language model in GGUF.*judge:"):
        load_scorer(str(tmp_path))


def test_the_wrong_kind(folders):
    with pytest.raises(ValueError, match="is a llama language model, not a preference model"):
        load_scorer("gpm:" + folders["reward"])
    with pytest.raises(ValueError, match="num_labels=2"):
        load_scorer(folders["pair"])
    with pytest.raises(ValueError, match="use GPMScorer"):
        load_scorer("reward:" + folders["gpm"])


def test_a_function_of_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "my_preferences.py").write_text(
        "def longer(prompts, groups):\n"
        "    return [[[float(len(a) - len(b)) for b in one] for a in one] for one in groups]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    scorer = load_scorer("function:my_preferences.longer")
    assert scorer.name == "my_preferences.longer"
    assert scorer(["x"], [["abc", "a"]])[0].tolist() == [[0.0, 2.0], [-2.0, 0.0]]
    for spec, sentence in {
        "function:my_preferences.shorter": "The module my_preferences has no shorter",
        "function:longer": "'longer' is no function: give MODULE.NAME",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            load_scorer(spec)
    with pytest.raises(ValueError, match=r"so \['dtype'\] mean nothing to it"):
        load_scorer("function:my_preferences.longer", dtype="float32")
