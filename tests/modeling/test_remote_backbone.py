"""A backbone that brings its own code: it runs when the user says so, unasked, and is saved with the model."""

import builtins
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpm_hf import GPMForPreference, load_preference_model, load_tokenizer
from tests.conftest import draw_gate
from tests.remote_backbone import save_remote_backbone

QUESTION = ("What is the capital of France?", ["Paris.", "A city on the river Seine", "Bake it in a hot oven"])


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch):
    def ask(*_):
        raise AssertionError("asked on the terminal")

    monkeypatch.setattr(builtins, "input", ask)


@pytest.fixture
def saved(tmp_path):
    """A saved model, its scores, and nothing left of what it was made from."""
    base = save_remote_backbone(tmp_path / "base")
    model = draw_gate(GPMForPreference.from_backbone(base, embedding_dim=4, trust_remote_code=True)).eval()
    assert type(model.model).__name__ == "FarawayModel"
    tokenizer = load_tokenizer(base)
    model.save_pretrained(tmp_path / "gpm")
    tokenizer.save_pretrained(tmp_path / "gpm")
    shutil.rmtree(base)
    return str(tmp_path / "gpm"), model.preference_scores(tokenizer, *QUESTION)


def test_its_code_is_saved_with_the_model(saved):
    folder, scores = saved
    model = load_preference_model(folder, trust_remote_code=True)
    assert torch.equal(model.preference_scores(load_tokenizer(folder), *QUESTION), scores)
    assert os.path.dirname(folder) not in Path(folder, "config.json").read_text()
    again = f"{folder}-again"
    model.save_pretrained(again)
    assert os.path.dirname(folder) not in Path(again, "config.json").read_text()
    model = load_preference_model(again, trust_remote_code=True)
    assert torch.equal(model.preference_scores(load_tokenizer(folder), *QUESTION), scores)


def test_untrusted_code_is_refused(tmp_path, saved):
    base = save_remote_backbone(tmp_path / "other")
    for load in (
        lambda: GPMForPreference.from_backbone(base),
        lambda: load_preference_model(saved[0]),
        lambda: GPMForPreference.from_pretrained(saved[0]),
    ):
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            load()


@pytest.mark.parametrize("peft", [False, True])
def test_training(tmp_path, peft):
    from datasets import Dataset
    from peft import LoraConfig

    from gpm_hf import GPMRewardTrainer
    from tests.training.test_reward_trainer import config, ring_rows

    trainer = GPMRewardTrainer(
        save_remote_backbone(tmp_path / "base"),
        config(tmp_path / "out", embedding_dim=4, trust_remote_code=True),
        train_dataset=Dataset.from_list(ring_rows()),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"]) if peft else None,
    )
    trainer.train()
    trainer.save_model()
    tokenizer = load_tokenizer(str(tmp_path / "out"))
    expected = trainer.gpm.preference_scores(tokenizer, *QUESTION)
    model = load_preference_model(str(tmp_path / "out"), trust_remote_code=True)
    torch.testing.assert_close(model.preference_scores(tokenizer, *QUESTION), expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        load_preference_model(str(tmp_path / "out"))


@pytest.mark.slow
def test_a_stranger_loads_it(saved, tmp_path):
    """Without this package, as from the Hub."""
    folder, scores = saved
    code = (
        "import json, sys; from transformers import AutoModel, AutoTokenizer\n"
        f"model = AutoModel.from_pretrained({folder!r}, trust_remote_code=True).eval()\n"
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r}, trust_remote_code=True)\n"
        f"print(json.dumps(model.preference_scores(tokenizer, *{QUESTION!r}).tolist()))\n"
        "assert 'gpm_hf' not in sys.modules"
    )
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == scores.tolist()
