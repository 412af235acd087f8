"""`gpm-hf train`: what goes to the launcher, what to the script."""

from pathlib import Path

import accelerate.commands.launch
import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from gpm_hf.cli import main
from gpm_hf.cli.training import launch, split_options


def test_options_of_launcher_and_script_may_be_mixed():
    given = ["--output_dir", "out", "--num_processes", "4", "--bf16", "false", "--multi_gpu", "--config", "run.yaml"]
    launcher, script = split_options(given)
    assert launcher == ["--num_processes", "4", "--multi_gpu"]
    assert script == ["--output_dir", "out", "--bf16", "false", "--config", "run.yaml"]


def test_a_configuration_is_a_file_or_one_that_is_shipped(tmp_path):
    own = tmp_path / "own.yaml"
    own.touch()
    assert split_options(["--config_file", str(own)]) == (["--config_file", str(own)], [])
    (name, path), _ = split_options(["--config_file", "zero2"])
    assert name == "--config_file" and "zero_stage: 2" in Path(path).read_text()
    with pytest.raises(FileNotFoundError, match=r"no launcher configuration zero9.*zero3.yaml"):
        split_options(["--config_file", "zero9"])


def test_an_unknown_configuration_is_one_sentence(capsys):
    assert main(["train", "reward", "--config_file", "zero9"]) == 1
    assert capsys.readouterr().err.startswith("gpm-hf train: There is no launcher configuration zero9.yaml")


def test_debug_shows_the_traceback():
    with pytest.raises(FileNotFoundError):
        main(["--debug", "train", "reward", "--config_file", "zero9"])


@pytest.mark.parametrize(
    ("script", "code"), [("sys.exit(2)", 2), ("sys.exit(130)", 130), ("os.kill(os.getpid(), 9)", 137), ("pass", None)]
)
def test_the_exit_code_is_the_scripts(tmp_path, monkeypatch, capfd, script, code):
    """Through accelerate's own launcher, which starts a module in place of the launch script."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "reward.py").write_text(f"import os, sys\n{script}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("gpm_hf.cli.training.SCRIPTS", "scripts")
    if code is None:
        launch("reward", [])
    else:
        with pytest.raises(SystemExit) as end:
            launch("reward", [])
        assert end.value.code == code
    assert "Traceback" not in capfd.readouterr().err


def test_of_several_processes_the_code_is_the_first_ones(tmp_path, monkeypatch):
    def failing(_):
        failures = [
            ProcessFailure(local_rank=rank, pid=rank, exitcode=code, error_file=str(tmp_path / "absent"))
            for rank, code in ((0, -15), (1, 2))
        ]
        failures[0].timestamp, failures[1].timestamp = 20, 10
        raise ChildFailedError("reward", dict(enumerate(failures)))

    monkeypatch.setattr(accelerate.commands.launch, "launch_command", failing)
    with pytest.raises(SystemExit) as end:
        launch("reward", [])
    assert end.value.code == 2
