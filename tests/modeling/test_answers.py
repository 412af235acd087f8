"""What a backbone said is kept on disk for later processes: as long as nothing that it depends on is another."""

import importlib
import json
import multiprocessing
import subprocess
import sys

import pytest
import torch

from gpm_hf.modeling import GPMConfig, GPMForPreference, answers_gpm, packing_obstacle, probing_gpm, sharing_obstacle
from tests.conftest import backbone_config

# Passes of the backbone: plain rows, the prompts, their responses; plain rows and packed ones.
ALL = 5


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    folder = tmp_path / "answers"
    monkeypatch.setenv("GPM_HF_PROBE_CACHE", str(folder))
    return folder


def new_model(backbone=None, **options):
    torch.manual_seed(0)
    config = backbone_config(**options)
    backbone = None if backbone is None else backbone(config)
    return GPMForPreference(GPMConfig(text_config=config, embedding_dim=4), backbone).eval()


def passes(model=None):
    """How often a backbone is run until it has said that prompts can be shared and rows packed, in a new process."""
    probing_gpm._ANSWERS.clear()
    model, calls = model or new_model(), []
    model.model.register_forward_pre_hook(lambda *given: calls.append(1))
    assert sharing_obstacle(model) is None and packing_obstacle(model) is None
    model(torch.tensor([[5, 6, 7]]), prompt_lengths=torch.tensor([2]))
    return len(calls) - 1


def test_a_second_process_asks_nothing():
    assert passes() == ALL
    script = "from tests.modeling.test_answers import passes; print('passes', passes())"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.endswith("passes 0\n")


def test_another_configuration_is_asked():
    assert passes() == ALL
    assert passes(new_model(rms_norm_eps=1e-4)) == ALL
    assert passes(new_model().double()) == ALL
    assert passes() == 0


def test_other_versions_are_asked(monkeypatch):
    assert passes() == ALL
    monkeypatch.setattr(answers_gpm, "__version__", "5.99.0")
    assert passes() == ALL
    monkeypatch.undo()


def test_other_roads_are_asked(monkeypatch, tmp_path, folder):
    """The files of this package are part of the question."""
    assert passes() == ALL
    (tmp_path / "engine_gpm.py").write_text("# another engine\n")
    monkeypatch.setattr(answers_gpm, "__file__", str(tmp_path / "answers_gpm.py"))
    assert passes() == ALL


@pytest.fixture
def remote_code(monkeypatch, tmp_path):
    """A folder of remote code of its own, whatever other tests have imported; they find theirs again."""

    def imported():
        return {name: sys.modules[name] for name in list(sys.modules) if name.split(".")[0] == "transformers_modules"}

    others = imported()
    package = tmp_path / "transformers_modules" / "changing"
    package.mkdir(parents=True)
    # A package without this file gives way to one that has it, wherever that lies.
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    for name in others:
        del sys.modules[name]
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in imported():
        del sys.modules[name]
    sys.modules.update(others)


def test_other_code_under_the_same_name_is_asked(remote_code):
    """As of a repository whose code has changed: the file of the class, and one that it imports."""
    package = remote_code
    (package / "modeling_changing.py").write_text(
        "from transformers import LlamaModel\nclass ChangingModel(LlamaModel):\n    pass\n"
    )
    (package / "helper.py").write_text("SCALE = 1\n")
    changing = importlib.import_module("transformers_modules.changing.modeling_changing").ChangingModel
    assert passes(new_model(changing)) == ALL
    assert passes(new_model(changing)) == 0
    (package / "helper.py").write_text("SCALE = 2\n")
    assert passes(new_model(changing)) == ALL
    with open(package / "modeling_changing.py", "a") as file:
        file.write("# changed\n")
    assert passes(new_model(changing)) == ALL


def test_a_module_whose_forward_was_replaced_is_asked(monkeypatch):
    assert passes() == ALL
    model = new_model()
    attention = model.model.layers[1].self_attn
    monkeypatch.setattr(attention, "forward", attention.forward)
    assert passes(model) == ALL
    assert passes() == 0


def test_a_class_whose_forward_was_replaced_is_asked(monkeypatch):
    """As kernels for a family do, for all models of a process."""
    assert passes() == ALL
    attention = type(new_model().model.layers[1].self_attn)
    original = attention.forward

    def forward(self, *given, **options):
        return original(self, *given, **options)

    monkeypatch.setattr(attention, "forward", forward)
    assert passes() == ALL
    monkeypatch.undo()


def test_a_no_is_not_kept(folder, monkeypatch):
    model = new_model()

    def without_memory(*given, **options):
        raise RuntimeError("no memory")

    monkeypatch.setattr("gpm_hf.modeling.engine_gpm._run_suffixes", without_memory)
    probing_gpm._ANSWERS.clear()
    assert "no memory" in sharing_obstacle(model)
    monkeypatch.undo()
    monkeypatch.setenv("GPM_HF_PROBE_CACHE", str(folder))
    probing_gpm._ANSWERS.clear()
    assert sharing_obstacle(new_model()) is None


@pytest.mark.parametrize("content", ["", "{", "null", "{}", "\udcff"])
def test_a_broken_file_is_asked_and_written_again(folder, content):
    assert passes() == ALL
    files = {file: file.read_bytes() for file in folder.iterdir()}
    assert len(files) == len(probing_gpm.ROADS)
    for file in files:
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert passes() == ALL
    assert {file: file.read_bytes() for file in folder.iterdir()} == files


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """For root there is no folder that is read-only: one that cannot be made, and one whose files cannot."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GPM_HF_PROBE_CACHE", str(tmp_path / "file" / "answers"))
    assert passes() == ALL and passes() == ALL

    def read_only(*given, **options):
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setenv("GPM_HF_PROBE_CACHE", str(tmp_path / "answers"))
    monkeypatch.setattr(answers_gpm.tempfile, "TemporaryDirectory", read_only)
    assert passes() == ALL and passes() == ALL


def test_left_out_nothing_is_read_or_written(monkeypatch, folder):
    monkeypatch.setenv("GPM_HF_PROBE", "0")
    assert passes() == 0 and not folder.exists()


def _keep_often(description, count):
    for _ in range(count):
        answers_gpm.keep(description, "sharing")


def test_two_processes_at_once(folder):
    """Whoever reads finds a whole file or none."""
    description = {"type": "llama", "code": "x" * 100_000}
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_keep_often, args=(description, 200)) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        for file in folder.glob("*.json"):
            seen.add(json.loads(file.read_text()) == {"road": "sharing", **description})
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen == {True} and answers_gpm.is_kept(description, "sharing")
    assert [file.suffix for file in folder.iterdir()] == [".json"]
