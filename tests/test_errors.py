"""An error is one sentence where somebody wrote it for the user, and a traceback where the program is at fault."""

import os
import subprocess
import sys

import pytest

from gpm_hf.errors import explanation, is_explained


def raised(program, name):
    """The error of a piece of program that is run as the module `name`."""
    with pytest.raises(Exception) as caught:
        exec(compile(program, "<program>", "exec"), {"__name__": name})
    return caught.value


@pytest.mark.parametrize("name", ["gpm_hf.data.files", "transformers_modules.me.gpm.modeling_gpm", "peft.config"])
def test_a_sentence_that_was_raised(name):
    assert is_explained(raised("raise ValueError('row 3 has no prompt')", name))
    # ... also where the reason is another error, and where cleaning up comes between
    assert is_explained(raised("try:\n  int('x')\nexcept ValueError as e:\n  raise ValueError('row 3') from e", name))
    assert is_explained(raised("try:\n  raise ValueError('row 3')\nfinally:\n  pass", name))


@pytest.mark.parametrize(
    "fault",
    ["a, b = 1, 2, 3", "int('x')", "'ab'.index('c')", "import numpy as np; np.zeros(3) + np.zeros(2)"],
)
def test_a_fault_of_the_program_keeps_its_traceback(fault):
    error = raised(fault, "gpm_hf.data.files")
    assert isinstance(error, ValueError)
    assert not is_explained(error)


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), RuntimeError("c"), AttributeError("d")])
def test_other_errors_are_no_sentences(error):
    assert not is_explained(error)


def test_somebody_elses_value_error_is_none():
    assert not is_explained(raised("raise ValueError('axis 3 is out of bounds')", "numpy.linalg"))
    assert not is_explained(ValueError("never raised"))


def test_files_packages_and_the_hub():
    assert is_explained(FileNotFoundError("no a.jsonl"))
    assert is_explained(ImportError("pip install 'gpm-hf[eval]'"))
    assert explanation(OSError("401 Client Error")).endswith("Log in with `hf auth login`, or set HF_TOKEN.")


def script(options, **environment):
    return subprocess.run(
        [sys.executable, "-m", "gpm_hf.scripts.reward", *options],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_a_launch_script_ends_in_words(tmp_path):
    options = ["--output_dir", str(tmp_path), "--dataset_name", "gone.jsonl", "--use_cpu", "--bf16", "false"]
    options += ["--model_name_or_path", "gone"]
    ended = script(options)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert "gpm-hf train reward: " in ended.stderr and "gone.jsonl" in ended.stderr
    assert "Traceback" in script(options, GPM_HF_DEBUG="1").stderr
