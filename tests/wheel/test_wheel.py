"""
The commands of the README out of an installed wheel, in an empty folder, without the clone.

`make test-wheel` builds the wheel, installs it into an environment of its own and names that environment's `bin` in
GPM_HF_WHEEL_BIN.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import save_backbone
from tests.serving.groups import save_model
from tests.serving.servers import free_port, wait_until_ready

BIN = os.environ.get("GPM_HF_WHEEL_BIN")

pytestmark = pytest.mark.skipif(BIN is None, reason="GPM_HF_WHEEL_BIN is not set: make test-wheel sets it")


def run(command, folder):
    command = shlex.split(command)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    program = str(Path(BIN).resolve() / command[0])
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_is_the_installed_one(tmp_path):
    # -P: the folder a program starts in is not searched
    where = run("python -P -c 'import gpm_hf; print(gpm_hf.__file__)'", tmp_path)
    assert "site-packages" in where


def test_train_and_score_in_an_empty_folder(tmp_path):
    save_backbone(tmp_path / "backbone")
    pairs = [
        {"prompt": f"What is {n} + {n}?", "chosen": f"It is {2 * n}.", "rejected": f"It is {2 * n + 1}, I believe."}
        for n in range(8)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run(
        "gpm-hf train reward --num_processes 1 --model_name_or_path backbone --dataset_name pairs.jsonl --max_steps 2 "
        "--embedding_dim 4 --output_dir runs/gpm --use_cpu --bf16 false --report_to none",
        tmp_path,
    )
    assert (tmp_path / "runs/gpm/README.md").is_file(), "the card's template is not in the wheel"
    assert (tmp_path / "runs/gpm/modeling_gpm.py").is_file(), "the model's code is not in the wheel"
    printed = run("gpm-hf score runs/gpm --prompt Hello? --response Yes. --response No.", tmp_path)
    assert "Yes." in printed


def test_shipped_files_are_found(tmp_path):
    run("python -P -c 'from gpm_hf.templates import launcher_config; launcher_config(\"zero3\")'", tmp_path)
    assert "reward" in run("gpm-hf train --help", tmp_path)


def test_export_serve_and_score_as_the_page_says(tmp_path):
    save_model(tmp_path / "runs" / "gpm", embedding_dim=4)
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    export, serve, score = re.search(r"(?s)```bash\n(.*?)\n```", page).group(1).splitlines()
    assert "gpm-hf serve runs/gpm-served" in run(export, tmp_path)
    port = free_port()
    command = [str(Path(BIN).resolve() / "gpm-hf"), *shlex.split(serve.replace("8000", str(port)))[1:]]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", server)
            assert "Seven minutes." in run(score.replace("8000", str(port)), tmp_path)
        finally:
            server.terminate()
