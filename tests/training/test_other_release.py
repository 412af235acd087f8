"""
What one release of transformers saved, another loads and resumes with equal numbers. `GPM_HF_OTHER_PYTHON` names the
interpreter of another environment, such as `.venv-newest/bin/python`, which `make test-newest` makes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

OTHER = os.environ.get("GPM_HF_OTHER_PYTHON")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(OTHER is None, reason="GPM_HF_OTHER_PYTHON names no interpreter of another environment"),
]


def work(python, what, folder):
    command = [python, "-m", "tests.training.other_release_worker", what, str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads((folder / f"{what}.json").read_text())


@pytest.mark.parametrize("first, second", [(sys.executable, OTHER), (OTHER, sys.executable)], ids=["there", "back"])
def test_saved_under_one_and_resumed_under_the_other(first, second, tmp_path):
    written, read = work(first, "write", tmp_path), work(second, "read", tmp_path)
    assert written["transformers"] != read["transformers"]
    for name, numbers in written["found"].items():
        kind = "scores" if "scores" in numbers else "logits"
        found = read["found"][name]
        assert found["loaded"] == pytest.approx(numbers[kind], abs=1e-5), name
        assert found["resumed"]["losses"] == pytest.approx(numbers["losses"], abs=1e-5), name
        assert found["resumed"][kind] == pytest.approx(numbers[kind], abs=1e-4), name
        worst = max(abs(a - b) for a, b in zip(found["resumed"][kind], numbers[kind]))
        exact = found["loaded"] == numbers[kind]
        print(f"{name}: loaded {'equal' if exact else 'not bit-equal'}, resumed within {worst:.1e}")
