"""A folder holds the weights of one model, whatever was saved into it before, and a folder of two is refused."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM

from gpm_hf import GPMForPreference, load_preference_model
from gpm_hf.modeling import weight_files_gpm
from gpm_hf.modeling.weight_files_gpm import check_one_model, is_weight_file, saved_as_one_model, weight_sets
from tests.conftest import backbone_config, build_gpm

HEADS = ["embedding_head", "gate_head"]


def save_adapter(folder, base):
    """As PEFT does, which leaves what else is in the folder."""
    model = GPMForPreference.from_pretrained(base)
    model.name_or_path = str(base)
    lora = LoraConfig(
        task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], modules_to_save=HEADS, init_lora_weights=False
    )
    adapter = get_peft_model(model, lora)
    adapter.save_pretrained(folder, save_embedding_layers=False)
    model.save_config_and_code(folder)
    return adapter


def save_earlier(kind, folder, base):
    """Weights of another model, by another program."""
    if kind == "adapter":
        save_adapter(folder, base)
    elif kind == "adapter configuration alone":
        save_adapter(folder, base)
        (folder / "adapter_model.safetensors").unlink()
    elif kind == "pickle":
        folder.mkdir()
        torch.save(build_gpm(embedding_dim=4, seed=1).state_dict(), folder / "pytorch_model.bin")
    elif kind == "one file":
        build_gpm(embedding_dim=4, seed=1).save_pretrained(folder)
    elif kind == "shards":
        build_gpm(embedding_dim=4, seed=1).save_pretrained(folder, max_shard_size="10KB")
    else:
        assert kind == "shards that no index names"
        build_gpm(embedding_dim=4, seed=1).save_pretrained(folder, max_shard_size="10KB")
        (folder / "model.safetensors.index.json").unlink()


KINDS = ["adapter", "adapter configuration alone", "pickle", "one file", "shards", "shards that no index names"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    build_gpm(embedding_dim=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def new():
    return build_gpm(embedding_dim=4, seed=7)


def assert_is(folder, model):
    """By each way of loading."""
    assert len(weight_sets(folder)) == 1
    for loaded in (GPMForPreference.from_pretrained(folder), AutoModel.from_pretrained(folder)):
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name])
    assert type(load_preference_model(str(folder))) is GPMForPreference


@pytest.mark.parametrize("size", ["10KB", "1GB"])
@pytest.mark.parametrize("kind", KINDS)
def test_saving_leaves_one_model(kind, size, base, new, tmp_path):
    folder = tmp_path / "model"
    save_earlier(kind, folder, base)
    kept = {"tokenizer.json": "{}", "notes.bin": "x", "model.fp16.safetensors": "x", "optimizer.pt": "x"}
    for name, text in kept.items():
        (folder / name).write_text(text)
    new.save_pretrained(folder, max_shard_size=size)
    assert_is(folder, new)
    assert {name: (folder / name).read_text() for name in kept} == kept
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_a_merged_model_beside_its_adapter_has_the_lora_once(base, tmp_path, tokenizer):
    adapter = save_adapter(tmp_path, base).eval()
    pair = ("Hello", ["Good day", "Go away"])
    expected = adapter.get_base_model().preference_scores(tokenizer, *pair)
    adapter.merge_and_unload().save_pretrained(tmp_path)
    for found in (load_preference_model(str(tmp_path)), AutoModel.from_pretrained(tmp_path)):
        torch.testing.assert_close(found.preference_scores(tokenizer, *pair), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_are_refused_by_their_files(kind, base, new, tmp_path):
    """As after a copy, or after saving by another program."""
    folder, other = tmp_path / "model", tmp_path / "other"
    save_earlier(kind, folder, base)
    new.save_pretrained(other, max_shard_size="10KB" if kind == "one file" else "1GB")
    shutil.copytree(other, folder, dirs_exist_ok=True)
    first = {"adapter": "adapter_model", "pickle": "pytorch_model.bin", "one file": "index"}.get(kind, "-00001-of-")
    first = "adapter_config.json" if kind == "adapter configuration alone" else first
    for load in (GPMForPreference.from_pretrained, AutoModel.from_pretrained, lambda f: load_preference_model(str(f))):
        with pytest.raises(ValueError, match=r"weights of 2 models \(.*model\.safetensors.*keep the files") as error:
            load(folder)
        assert first in str(error.value)


def test_a_backbone_may_be_there_in_both_formats_but_not_twice_in_one(tmp_path):
    model = AutoModelForCausalLM.from_config(backbone_config())
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert GPMForPreference.from_backbone(tmp_path, embedding_dim=4).config.embedding_dim == 4
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    with pytest.raises(ValueError, match=r"weights of 2 models \(model\.safetensors; model\.safetensors\.index"):
        GPMForPreference.from_backbone(tmp_path, embedding_dim=4)


def test_an_adapter_does_not_replace_its_base(base, tmp_path):
    (tmp_path / "base").mkdir()
    shutil.copytree(base, tmp_path / "base", dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    refused = pytest.raises(ValueError, match=r"base model lies in .*: save to another folder")
    with refused, saved_as_one_model(tmp_path / "base") as aside:
        save_adapter(aside, tmp_path / "base")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}


def test_an_error_while_saving_changes_nothing(base, new, tmp_path, monkeypatch):
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*arguments, **options):
        raise OSError("no space left on device")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", fail)
    with pytest.raises(OSError, match="no space"):
        new.save_pretrained(tmp_path)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", ["adapter", "one file", "shards"])
def test_killed_anywhere_the_folder_holds_the_old_model_the_new_one_or_says_so(kind, base, new, tmp_path, monkeypatch):
    """Stops the move after each of its steps; no step leaves a mixture that something would load."""
    outcomes = []
    for steps in range(60):
        folder = tmp_path / str(steps)
        save_earlier(kind, folder, base)
        old = {name: (folder / name).read_bytes() for name in os.listdir(folder) if is_weight_file(name)}
        left = [steps]

        def counted(function, left=left):
            def step(*arguments, **options):
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                return function(*arguments, **options)

            return step

        with monkeypatch.context() as patch:
            move = weight_files_gpm._move_up

            def move_with_kills(aside, target, patch=patch, move=move, counted=counted):
                patch.setattr(weight_files_gpm.os, "replace", counted(os.replace))
                patch.setattr(weight_files_gpm.Path, "unlink", counted(weight_files_gpm.Path.unlink))
                move(aside, target)

            patch.setattr(weight_files_gpm, "_move_up", move_with_kills)
            try:
                new.save_pretrained(folder, max_shard_size="10KB")
                outcomes.append("whole")
            except Killed:
                outcomes.append("killed")
        if outcomes[-1] == "whole":
            assert_is(folder, new)
            break
        if (folder / "config.json").exists():
            # Nothing has changed yet.
            assert old == {name: (folder / name).read_bytes() for name in os.listdir(folder) if is_weight_file(name)}
            continue
        if (folder / "adapter_config.json").exists():
            # What PEFT alone would load is the old model's still.
            assert old == {name: (folder / name).read_bytes() for name in os.listdir(folder) if is_weight_file(name)}
        with pytest.raises(ValueError, match=r"was interrupted.*saved: move") as error:
            load_preference_model(str(folder))
        # What the sentence asks for gives the new model, or once more a sentence.
        (aside,) = folder.glob(".*.saved")
        assert aside.name in str(error.value)
        for path in aside.iterdir():
            path.replace(folder / path.name)
        aside.rmdir()
        saved = {k: v for file in folder.glob("model-*.safetensors") for k, v in load_file(file).items()}
        assert {k for k, v in new.state_dict().items() if torch.equal(v, saved.get(k, torch.empty(0)))} == set(
            new.state_dict()
        )
        if len(weight_sets(folder)) > 1:
            with pytest.raises(ValueError, match="keep the files of one"):
                load_preference_model(str(folder))
    assert outcomes[-1] == "whole" and len(outcomes) > 8


def test_index_that_cannot_be_read(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"index\.json is no index of shards"):
        check_one_model(tmp_path)


def test_an_index_may_name_the_one_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    check_one_model(tmp_path)


def test_what_is_no_folder_is_not_looked_at():
    check_one_model("somebody/a-model")


OLD_TRANSFORMERS = """
import sys
import transformers
transformers.__version__ = "4.57.1"
try:
    transformers.AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
except ImportError as error:
    print(error)
"""


def test_the_code_in_a_folder_says_which_transformers_it_needs(base, tmp_path):
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path), "PYTHONPATH": ""}
    command = [sys.executable, "-c", OLD_TRANSFORMERS, str(base)]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    needs = "A general preference model needs transformers 5.23 or newer"
    assert done.stdout.strip() == f"{needs}, and this is 4.57.1: `pip install -U transformers`.", done.stderr[-2000:]


def test_the_minimum_is_the_packages_own():
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    from gpm_hf.modeling.configuration_gpm import MINIMUM_TRANSFORMERS

    (own,) = [one for one in map(Requirement, requires("gpm-hf") or []) if one.name == "transformers"]
    assert ">={}.{}".format(*MINIMUM_TRANSFORMERS) in str(own.specifier).split(",")


def test_what_killed_processes_left_goes_with_the_next_saving(tmp_path):
    for name in (".4194305.saving", ".4194305.saved", f".{os.getppid()}.saving", ".other.saving"):
        (tmp_path / name).mkdir()
    (tmp_path / ".4194305.saving" / "model.safetensors").write_bytes(b"half")
    build_gpm().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.glob(".*")} == {f".{os.getppid()}.saving", ".other.saving"}
