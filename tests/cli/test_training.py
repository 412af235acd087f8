"""`gpm-hf train`: what goes to the launcher, what to the script."""

from pathlib import Path

import pytest

from gpm_hf.cli import main
from gpm_hf.cli.training import split_options


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
