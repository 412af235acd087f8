"""States of a frozen backbone: right, shared where they may be, computed anew where they must."""

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from gpm_hf.data.preference import encode_preference
from gpm_hf.training import head_states
from gpm_hf.training.head_states import with_head_states
from tests.conftest import build_gpm, build_tokenizer, draw_gate

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "I do not know.", "margin": 0.5},
    {"prompt": "Why?", "chosen": "I do not know.", "rejected": "Bread and salt.", "margin": 0.0},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "gpm_hf_head_states"


def many_rows(count=24):
    """Rows of many lengths; every response to a prompt is another sequence."""
    return [
        {"prompt": f"Question {i}?", "chosen": "Red. " * (i % 7 + 1), "rejected": f"It is {i}. " * (i % 5 + 1)}
        for i in range(count)
    ]


def encoded(rows=ROWS, tokenizer=None):
    tokenizer = tokenizer or build_tokenizer()
    dataset = Dataset.from_list(rows)
    return dataset.map(lambda row: encode_preference(row, tokenizer), remove_columns=["prompt", "chosen", "rejected"])


def folders(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def shards(cache):
    return sorted(path.name for path in cache.glob("*/*"))


def stacked(dataset):
    """The states of pairs by their sides, and those of their prompts."""
    rows = dataset[:]
    sides = [torch.stack(states) for states in zip(*rows["sequence_states"])]
    found = dict(zip(("chosen_state", "rejected_state"), sides, strict=True))
    return found | ({"prompt_state": torch.stack(rows["prompt_state"])} if "prompt_state" in rows else {})


def by_hand(model, rows):
    """Each sequence encoded alone and without padding."""

    @torch.no_grad()
    def state(ids):
        return model.model(torch.tensor([ids])).last_hidden_state[0, -1]

    names = ("chosen", "rejected", "prompt")
    return {f"{name}_state": torch.stack([state(row[f"{name}_ids"]) for row in rows]) for name in names}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, expected[name], atol=3e-5, rtol=0)


def count_encodes(model):
    """Makes the model write down how many sequences each batch has."""
    batches, pool = [], model.pool

    def counted(input_ids, **inputs):
        batches.append(len(input_ids))
        return pool(input_ids, **inputs)

    model.pool = counted
    return batches


def count_tokens(model, monkeypatch):
    """Makes the backbone write down how many tokens each pass has."""
    tokens, forward = [], model.model.forward

    def counted(input_ids, **more):
        tokens.append(input_ids.numel())
        return forward(input_ids, **more)

    monkeypatch.setattr(model.model, "forward", counted)
    return tokens


def test_states_are_those_of_single_unpadded_sequences(cache):
    model = build_gpm(embedding_dim=4)
    rows = encoded()
    found = with_head_states(rows, model, batch_size=3)
    assert_close(stacked(found), by_hand(model, rows))
    assert found["margin"] == rows["margin"]


def test_one_folder_serves_models_that_differ_in_their_heads_and_pairs_in_another_order(cache):
    model = build_gpm(embedding_dim=4)
    with_head_states(encoded(), model, 2)
    reward = build_gpm(embedding_dim=1, seed=1)
    reward.model.load_state_dict(model.model.state_dict())
    batches = count_encodes(reward)
    with_head_states(encoded(ROWS[::-1]), reward, 8)
    assert len(folders(cache)) == 1 and batches == []


def test_one_folder_serves_a_language_model_and_what_was_saved_from_it(cache, tmp_path, backbone_folder):
    """Cells of a grid that start from one backbone, by whatever name it was loaded."""
    from gpm_hf import GPMForPreference

    model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4)
    with_head_states(encoded(), model, 2)
    model.save_pretrained(tmp_path / "gpm")
    copy = shutil.copytree(backbone_folder, tmp_path / "copy")
    for again in (
        GPMForPreference.from_pretrained(tmp_path / "gpm"),
        GPMForPreference.from_backbone(str(copy), embedding_dim=1),
    ):
        batches = count_encodes(again)
        with_head_states(encoded(), again, 2)
        assert len(folders(cache)) == 1 and batches == []


def test_another_backbone_text_or_template_is_another_folder(cache):
    model = build_gpm(embedding_dim=4)
    with_head_states(encoded(), model, 2)
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    with_head_states(encoded(), model, 2)
    assert len(folders(cache)) == 2
    with_head_states(encoded([ROWS[0] | {"chosen": "Because!"}]), model, 2)
    assert len(folders(cache)) == 3
    tokenizer = build_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\n", "<|im_end|>")
    rows = encoded(tokenizer=tokenizer)
    found = with_head_states(rows, model, 2)
    assert len(folders(cache)) == 4
    assert_close(stacked(found), by_hand(model, rows))


def test_an_interrupted_run_leaves_no_file_behind(cache):
    model = build_gpm(embedding_dim=4)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    model.pool = interrupted
    with pytest.raises(KeyboardInterrupt):
        with_head_states(encoded(), model, 2)
    assert shards(cache) == []


@pytest.mark.parametrize(("shard_tokens", "count"), [(2**17, 1), (1000, 4), (64, 48)])
def test_states_do_not_depend_on_the_shards(cache, monkeypatch, shard_tokens, count):
    monkeypatch.setattr(head_states, "SHARD_TOKENS", shard_tokens)
    model, rows = build_gpm(embedding_dim=4), encoded(many_rows())
    found = with_head_states(rows, model, batch_size=4)
    assert len(shards(cache)) == count
    assert shards(cache)[-1] == f"states-{count:05d}-of-{count:05d}.safetensors"
    assert_close(stacked(found), by_hand(model, rows))


@pytest.mark.parametrize("backbone", ["llama", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("shard_tokens", [2**17, 300])
def test_a_prompt_of_many_answers_is_encoded_once(cache, monkeypatch, backbone, shard_tokens):
    """The rings of two prompts, beside pairs alone; some in shards that part them."""
    monkeypatch.setattr(head_states, "SHARD_TOKENS", shard_tokens)
    rows = many_rows(3)
    for question in ("Why is the sky blue when the sun is white, and the grass green?", "Where do rivers come from?"):
        answers = ["Because.", "I do not know.", "Bread and salt. " * 3]
        for place in range(3):
            pair = {"chosen": answers[place], "rejected": answers[place - 1]}
            rows.append({"prompt": f"{question} " * 3, **pair})
    model, data = build_gpm(backbone, embedding_dim=4), encoded(rows)
    expected = by_hand(model, data)
    tokens = count_tokens(model, monkeypatch)
    assert_close(stacked(with_head_states(data, model, 4)), expected)
    if shard_tokens > 300:
        apart = {tuple(row[side]) for row in data for side in ("chosen_ids", "rejected_ids")}
        assert sum(tokens) < 0.75 * sum(map(len, apart))


@pytest.mark.parametrize("backbone", ["llama", "gemma3_text", "gpt2"])
def test_what_all_prompts_begin_with_is_encoded_once(cache, monkeypatch, backbone):
    """A system message before twelve prompts of two lengths, of three answers each, and one of another length."""
    draw = random.Random(0)

    def ids(count):
        return [draw.randrange(10, 90) for _ in range(count)]

    system, rows = ids(60), []
    for own in [5] * 7 + [9] * 5 + [12]:
        prompt = system + ids(own)
        answers = [prompt + ids(draw.randint(2, 9)) for _ in range(3)]
        rows += [
            {"prompt_ids": prompt, "chosen_ids": answers[place], "rejected_ids": answers[place - 1]}
            for place in range(3)
        ]
    model, data = build_gpm(backbone, embedding_dim=4), Dataset.from_list(rows)
    expected = by_hand(model, data)
    tokens = count_tokens(model, monkeypatch)
    assert_close(stacked(with_head_states(data, model, 16)), expected)
    # The system message for each length and for the one alone, what the prompts have of their own, and answers that
    # are padded to nine at most.
    assert sum(tokens) <= 3 * 60 + 7 * 5 + 5 * 9 + 12 + 39 * 9


def test_only_shards_that_are_not_there_are_computed(cache, monkeypatch):
    monkeypatch.setattr(head_states, "SHARD_TOKENS", 256)
    model, rows = build_gpm(embedding_dim=4), encoded(many_rows())
    expected = stacked(with_head_states(rows, model, 4))
    (folder,) = cache.iterdir()
    lost = sorted(folder.iterdir())[5]
    size = len(load_file(lost)["response_states"])
    lost.unlink()
    # What a killed run was writing.
    lost.with_name(f".{lost.name}.1.part").write_bytes(b"half")
    batches = count_encodes(model)
    assert_close(stacked(with_head_states(rows, model, 4)), expected)
    assert sum(batches) == size == 4


def test_too_little_room_is_said_before_anything_is_computed(cache, monkeypatch, caplog):
    model, rows = build_gpm(embedding_dim=4), encoded()
    usage = shutil.disk_usage("/")
    sequences = len({tuple(row[name]) for row in rows for name in ("chosen_ids", "rejected_ids")})
    size = sequences * 2 * 32 * 4  # two vectors of 32 numbers of 4 bytes
    batches = count_encodes(model)
    monkeypatch.setattr(head_states.shutil, "disk_usage", lambda path: usage._replace(free=size - 1))
    with pytest.raises(OSError, match="HF_DATASETS_CACHE"):
        with_head_states(rows, model, 2)
    assert batches == [] and shards(cache) == []
    monkeypatch.setattr(head_states.shutil, "disk_usage", lambda path: usage._replace(free=size))
    with_head_states(rows, model, 2)
    assert sum(batches) == sequences


def test_states_that_are_not_finite_are_not_kept(cache):
    model = build_gpm(embedding_dim=4)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        with_head_states(encoded(), model, 2)
    assert shards(cache) == []


def test_processes_with_different_weights_are_refused(cache, monkeypatch):
    """As FSDP's are that load the weights on the first process only."""
    monkeypatch.setattr(head_states, "gather_object", lambda own: [*own, "another"])
    with pytest.raises(ValueError, match="cpu_ram_efficient_loading"):
        with_head_states(encoded(), build_gpm(embedding_dim=4), 2)
    assert shards(cache) == []


def test_rows_are_read_by_workers_from_the_same_files(cache):
    """Neither a worker's copy nor the data set's fingerprint holds the states."""
    model, rows = build_gpm(embedding_dim=4), encoded(many_rows())
    found = with_head_states(rows, model, 4)
    files = list(cache.glob("*/*"))
    reader = head_states.HeadStates(files, [0])
    expected = load_file(files[0])["response_states"][3]
    assert torch.equal(reader.read("response_states", [5, 3])[1], expected)
    pickled = pickle.dumps(reader)
    assert len(pickled) < 1000
    assert torch.equal(pickle.loads(pickled).read("response_states", [3])[0], expected)
    loader = torch.utils.data.DataLoader(found, batch_size=None, num_workers=1, multiprocessing_context="fork")
    read = torch.stack([row["sequence_states"][0] for row in loader])
    assert torch.equal(read, stacked(found)["chosen_state"])


def test_longrope_backbones_do_not_mix_lengths(cache):
    """Phi-3's angles depend on the longest position of a batch."""
    from transformers import AutoConfig

    from gpm_hf.modeling import GPMConfig, GPMForPreference

    torch.manual_seed(0)
    text_config = AutoConfig.for_model(
        "phi3",
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        original_max_position_embeddings=40,
        rope_scaling={"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4},
        pad_token_id=0,
        initializer_range=0.3,
    )
    model = draw_gate(GPMForPreference(GPMConfig(text_config=text_config, embedding_dim=4)).eval())
    rows = encoded(many_rows(8))
    lengths = [len(row["chosen_ids"]) for row in rows]
    assert min(lengths) < 40 < max(lengths)
    found, expected = stacked(with_head_states(rows, model, batch_size=16)), by_hand(model, rows)
    for name in ("chosen_state", "rejected_state"):
        torch.testing.assert_close(found[name], expected[name], atol=3e-5, rtol=0)


# --- Several processes ---


def worker(folder, name, *arguments, launcher=()):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(
        [sys.executable, *launcher, "-m", "tests.training.head_states_worker", str(folder), name, *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, returncode=0):
    _, errors = process.communicate(timeout=300)
    # Under load gloo's threads can abort an interpreter that has done its work; what it wrote is checked.
    aborted = "terminate called without an active exception" in errors
    assert process.returncode == returncode or aborted, errors[-3000:]


def encodes(folder, name):
    return [int(line) for line in (folder / f"{name}.log").read_text().split()]


@pytest.fixture(scope="module")
def expected():
    model, rows = build_gpm(embedding_dim=4), encoded(many_rows())
    sequences = {tuple(row[name]) for row in rows for name in ("chosen_ids", "rejected_ids")}
    return by_hand(model, rows), len(sequences)


@pytest.mark.slow
def test_two_runs_at_the_same_moment(cache, tmp_path, expected):
    """Both end with the right states, leave nothing else behind, and share the work rather than do it twice."""
    states, sequences = expected
    (tmp_path / "wait_for.txt").write_text("a-0.log b-0.log")
    for process in [worker(tmp_path, name) for name in "ab"]:
        finish(process)
    for name in ("a-0", "b-0"):
        assert_close(load_file(tmp_path / f"{name}.safetensors"), states)
        assert encodes(tmp_path, name)
    total = sum(encodes(tmp_path, "a-0") + encodes(tmp_path, "b-0"))
    assert sequences <= total < 1.7 * sequences
    assert [path for path in cache.rglob("*") if path.name.startswith(".")] == []


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_shards_that_are_not_there(cache, tmp_path, expected):
    states, sequences = expected
    finish(worker(tmp_path, "killed", "7"), -signal.SIGKILL)
    # Three shards of two batches of two, and half of the fourth.
    assert encodes(tmp_path, "killed-0") == [2] * 7
    finished = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.safetensors")}
    assert len(finished) == 3
    finish(worker(tmp_path, "again"))
    done = sum(len(load_file(path)["response_states"]) for path in finished)
    assert sum(encodes(tmp_path, "again-0")) == sequences - done
    assert_close(load_file(tmp_path / "again-0.safetensors"), states)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    finish(worker(tmp_path, "third"))
    assert encodes(tmp_path, "third-0") == []
    assert_close(load_file(tmp_path / "third-0.safetensors"), states)


@pytest.mark.slow
def test_two_ranks_share_the_work(cache, tmp_path, expected):
    """Each sequence is encoded once, by one of them; both read all."""
    states, sequences = expected
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    finish(worker(tmp_path, "rank", launcher=torchrun))
    first, second = (sum(encodes(tmp_path, f"rank-{rank}")) for rank in range(2))
    assert first + second == sequences
    assert abs(first - second) <= 4
    for rank in range(2):
        assert_close(load_file(tmp_path / f"rank-{rank}.safetensors"), states)
