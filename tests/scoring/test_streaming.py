"""Scoring in chunks: the same file however often it was interrupted and by however many processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch

from gpm_hf.cli import main
from gpm_hf.scoring.streaming import score_stream
from tests.conftest import backbone_config, build_gpm, build_tokenizer

ROWS = [{"prompt": f"q{n}", "responses": ["a" * (n % 5 + 1), "b"], "id": n} for n in range(25)]


def score(prompts, groups):
    return [
        torch.full((len(group), len(group)), float(len(prompt) + len(group[0])))
        for prompt, group in zip(prompts, groups)
    ]


def describe(row, scores):
    return {"scores": scores.tolist()}


def shards(parts):
    """How many are finished."""
    return parts.read_bytes().count(b'}"]}\n') if parts.exists() else 0


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_come_out_in_order_with_their_scores(tmp_path):
    assert score_stream(iter(ROWS), score, describe, tmp_path / "out.jsonl", {}, chunk_size=4) == 25
    found = lines(tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == list(range(25))
    assert found[7]["scores"] == score(["q7"], [ROWS[7]["responses"]])[0].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_an_interrupted_run_goes_on_and_repeats_no_chunk(tmp_path):
    scored = []

    def fragile(prompts, groups):
        if len(scored) == 12 and not resumed:
            raise KeyboardInterrupt
        scored.extend(prompts)
        return score(prompts, groups)

    resumed = False
    with pytest.raises(KeyboardInterrupt):
        score_stream(ROWS, fragile, describe, tmp_path / "out.jsonl", {"model": "m"}, chunk_size=4)
    assert not (tmp_path / "out.jsonl").exists()
    resumed = True
    score_stream(ROWS, fragile, describe, tmp_path / "out.jsonl", {"model": "m"}, chunk_size=4)
    assert scored == [row["prompt"] for row in ROWS]
    assert [row["id"] for row in lines(tmp_path / "out.jsonl")] == list(range(25))


def test_parts_of_another_run_are_refused(tmp_path):
    def fail(prompts, groups):
        if "q4" in prompts:
            raise KeyboardInterrupt
        return score(prompts, groups)

    with pytest.raises(KeyboardInterrupt):
        score_stream(ROWS, fail, describe, tmp_path / "out.jsonl", {"model": "one"}, chunk_size=4)
    with pytest.raises(ValueError, match=r"other \['model'\].*remove that file"):
        score_stream(ROWS, score, describe, tmp_path / "out.jsonl", {"model": "two"}, chunk_size=4)
    with pytest.raises(ValueError, match="no rows"):
        score_stream([], score, describe, tmp_path / "empty.jsonl", {})
    assert not (tmp_path / ".empty.jsonl.parts").exists()
    with pytest.raises(ValueError, match="is a folder: name a file"):
        score_stream(ROWS, score, describe, tmp_path, {})
    with pytest.raises(ValueError, match="0 rows at once"):
        score_stream(ROWS, score, describe, tmp_path / "none.jsonl", {}, chunk_size=0)


def test_parts_of_an_earlier_version_are_refused_in_words(tmp_path):
    """Their settings went before their shards, so that these could be taken for another run's."""
    parts = tmp_path / ".out.jsonl.parts"
    parts.mkdir()
    (parts / "000000000.jsonl").write_text('{"prompt": "of another model"}\n')
    with pytest.raises(ValueError, match=r"out\.jsonl that was interrupted under an earlier version.*remove that"):
        score_stream(ROWS, score, describe, tmp_path / "out.jsonl", {})


def test_shards_without_settings_are_never_taken(tmp_path):
    def fail(prompts, groups):
        if "q4" in prompts:
            raise KeyboardInterrupt
        return [matrix + 1 for matrix in score(prompts, groups)]

    parts = tmp_path / ".out.jsonl.parts"
    with pytest.raises(KeyboardInterrupt):
        score_stream(ROWS, fail, describe, tmp_path / "out.jsonl", {"model": "one"}, chunk_size=4)
    parts.write_bytes(b"".join(parts.read_bytes().splitlines(True)[1:]))
    score_stream(ROWS, score, describe, tmp_path / "out.jsonl", {"model": "two"}, chunk_size=4)
    score_stream(ROWS, score, describe, tmp_path / "clean.jsonl", {"model": "two"}, chunk_size=4)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "clean.jsonl").read_bytes()


def test_a_run_that_finished_no_shard_binds_nobody(tmp_path):
    def fail(prompts, groups):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_stream(ROWS, fail, describe, tmp_path / "out.jsonl", {"model": "one"})
    assert score_stream(ROWS, score, describe, tmp_path / "out.jsonl", {"model": "two"}, chunk_size=4) == 25
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_a_corrected_row_costs_its_own_shard_alone(tmp_path):
    scored = []

    def strict(prompts, groups):
        if any("bad" in group for group in groups):
            raise ValueError("a bad response")
        scored.append(prompts)
        return score(prompts, groups)

    wrong = [row | {"responses": ["bad", "b"]} if row["id"] == 21 else row for row in ROWS]
    with pytest.raises(ValueError, match=r"Row 22.*a bad response"):
        score_stream(wrong, strict, describe, tmp_path / "out.jsonl", {}, chunk_size=4)
    scored.clear()
    # Another row was corrected as well.
    right = [row | {"responses": ["new", "b"]} if row["id"] == 5 else row for row in ROWS]
    score_stream(right, strict, describe, tmp_path / "out.jsonl", {}, chunk_size=4)
    assert scored == [[f"q{n}" for n in shard] for shard in (range(4, 8), range(20, 24), range(24, 25))]
    score_stream(right, score, describe, tmp_path / "clean.jsonl", {}, chunk_size=4)
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "clean.jsonl").read_bytes()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream")
    build_gpm(embedding_dim=4).save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    with open(folder / "pairs.jsonl", "w") as file:
        for n in range(3000):
            row = {"prompt": f"Question {n}?", "chosen": f"Answer {n}.", "rejected": "I do not know. " * (n % 4 + 1)}
            file.write(json.dumps(row) + "\n")
    return folder


def command(data, output, *launcher, chunk_size=50):
    module = [*launcher, "-m", "gpm_hf.cli"]
    options = ["--output", str(output), "--chunk-size", str(chunk_size), "--device", "cpu"]
    return [sys.executable, *module, "score", str(data / "gpm"), "--input", str(data / "pairs.jsonl"), *options]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": os.getcwd()}


def test_pairs_are_groups_of_two(data, tmp_path):
    pairs = tmp_path / "few.jsonl"
    pairs.write_text("".join((data / "pairs.jsonl").read_text().splitlines(True)[:3]))
    assert main(["score", str(data / "gpm"), "--input", str(pairs), "--output", str(tmp_path / "out.jsonl")]) == 0
    model, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    for row in lines(tmp_path / "out.jsonl"):
        expected = model.preference_scores(tokenizer, row["prompt"], [row["chosen"], row["rejected"]])
        assert torch.allclose(torch.tensor(row["scores"]), expected, atol=1e-4)


@pytest.mark.slow
def test_a_killed_run_and_two_processes_give_the_same_file(data, tmp_path):
    subprocess.run(command(data, tmp_path / "whole.jsonl"), check=True, env=environment(), capture_output=True)
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == 3000

    killed = subprocess.Popen(command(data, tmp_path / "killed.jsonl"), env=environment(), stderr=subprocess.DEVNULL)
    parts = tmp_path / ".killed.jsonl.parts"
    while shards(parts) < 10:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert 10 <= shards(parts) < 60 and not (tmp_path / "killed.jsonl").exists()
    # Not the input's path but its content and time are what count; here it is the very same file.
    subprocess.run(command(data, tmp_path / "killed.jsonl"), check=True, env=environment(), capture_output=True)
    found = [json.loads(line) for line in (tmp_path / "killed.jsonl").read_bytes().splitlines()]
    assert (tmp_path / "killed.jsonl").read_bytes() == whole and len(found) == 3000

    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        command(data, tmp_path / "two.jsonl", *launcher), check=True, env=environment(), capture_output=True
    )
    assert (tmp_path / "two.jsonl").read_bytes() == whole


def write_pairs(folder, count):
    """A model of one layer and 16 dimensions, and pairs of 20 to 170 tokens."""
    from gpm_hf.modeling import GPMConfig, GPMForPreference

    torch.manual_seed(0)
    text_config = backbone_config(num_hidden_layers=1, hidden_size=16, num_attention_heads=2, num_key_value_heads=1)
    GPMForPreference(GPMConfig(text_config=text_config, embedding_dim=4)).save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    with open(folder / "pairs.jsonl", "w") as file:
        for n in range(count):
            prompt = f"Question {n}?" + " How do I bake bread?" * (n % 97 == 0) * 10
            row = {"prompt": prompt, "chosen": f"Answer {n}.", "rejected": "I do not know. " * (n % 4 + 1)}
            file.write(json.dumps(row) + "\n")


@pytest.mark.slow
def test_a_hundred_thousand_pairs_in_constant_memory_also_when_killed(tmp_path):
    count = 100_000
    write_pairs(tmp_path, count)
    run = subprocess.Popen(
        command(tmp_path, tmp_path / "whole.jsonl", chunk_size=256), env=environment(), stderr=subprocess.DEVNULL
    )
    parts, process = tmp_path / ".whole.jsonl.parts", psutil.Process(run.pid)
    while not shards(parts):
        assert run.poll() is None
        time.sleep(0.02)
    first = most = process.memory_info().rss
    while run.poll() is None:
        time.sleep(0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            most = max(most, process.memory_info().rss)
    assert run.returncode == 0
    print(f"resident after the first chunk {first / 2**20:.0f} MB, at most {most / 2**20:.0f} MB")
    assert most - first < 200 * 2**20
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == count

    killed = subprocess.Popen(
        command(tmp_path, tmp_path / "killed.jsonl", chunk_size=256), env=environment(), stderr=subprocess.DEVNULL
    )
    parts = tmp_path / ".killed.jsonl.parts"
    while shards(parts) <= 200:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed.jsonl").exists()
    kept = parts.read_bytes()
    kept = kept[: kept.rindex(b"\n") + 1]
    resumed = subprocess.Popen(
        command(tmp_path, tmp_path / "killed.jsonl", chunk_size=256), env=environment(), stderr=subprocess.DEVNULL
    )
    while shards(parts) <= 300:
        assert resumed.poll() is None
        time.sleep(0.02)
    assert parts.read_bytes().startswith(kept)  # what was finished is not scored again
    assert resumed.wait() == 0
    assert (tmp_path / "killed.jsonl").read_bytes() == whole
