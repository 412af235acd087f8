"""News is read by who runs a command, once, and by nobody who uses the library; warnings by both."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TRAINS = """
import sys
from datasets import Dataset
from gpm_hf import GPMRewardConfig, GPMRewardTrainer
from gpm_hf.news import show_news
from tests.conftest import build_gpm, build_tokenizer

row = {"prompt": "Hi?", "chosen": "Yes.", "rejected": "No."}
rows = Dataset.from_list([row, {**row, "chosen": "No."}])
options = {"train_heads_only": True, "use_cpu": True, "bf16": False, "report_to": "none", "max_length": 64}

def make():
    args = GPMRewardConfig(sys.argv[1], **options)
    GPMRewardTrainer(build_gpm(), args, train_dataset=rows, processing_class=build_tokenizer())

make()
print("--- a command", file=sys.stderr)
show_news()
make()
"""

SAYS = """
from accelerate import PartialState
from gpm_hf.news import get_logger, show_news

state = PartialState(cpu=True)
show_news()
get_logger("gpm_hf.training").info("two processes: %d", state.num_processes)
"""


@pytest.mark.slow
def test_a_command_tells_news_and_the_library_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    finished = subprocess.run(
        [sys.executable, "-c", TRAINS, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    library, command = finished.stderr.split("--- a command")
    assert "backbone's states" not in library
    assert command.count("Reading the backbone's states of 2 sequences") == 1
    for told in (library, command):
        assert told.count("1 of 2 train rows have equal responses") == 1 and "RANK" not in told


@pytest.mark.slow
def test_one_of_two_processes_speaks(tmp_path):
    (tmp_path / "says.py").write_text(SAYS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finished = subprocess.run(
        [*command, str(tmp_path / "says.py")], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    said = [line for line in finished.stderr.splitlines() if "two processes" in line]
    assert said == ["two processes: 2"], finished.stderr[-3000:]
