"""What counts for a model's identity, and what does not."""

import hashlib
import itertools
import json
import os
import sys

import pytest

from gpm_hf.identity import (
    data_identity,
    model_digest,
    model_identity,
    scorer_identity,
    software,
    text_versions,
    versions,
)

# Of a score: weights, settings, code, and whatever a tokenizer of transformers can be made of.
COUNTS = [
    "model.safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "dict.txt",
    "bpe.codes",
    "qwen.tiktoken",
    "tekken.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/tool_use.jinja",
    "modeling_gpm.py",
    "tokenization_own.py",
]
DOES_NOT = [
    "README.md",
    "gpm_run.json",
    "results/cyclic.json",
    "learned_cycles.png",
    "trainer_state.json",
    "training_args.bin",
    "optimizer.pt",
    "rng_state_0.pth",
    "checkpoint-3/model.safetensors",
    ".gitattributes",
]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def write(path, text="content"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize("name", COUNTS)
def test_counts(folder, name):
    before, found = model_digest(folder), []
    for value in range(2):
        write(folder / name, json.dumps({"weight_map": {"a": "model.safetensors"}, "more": value}))
        found.append(model_digest(folder))
    assert len({before, *found}) == 3
    assert model_identity(folder) == f"sha256:{found[1]}"
    (folder / name).rename(folder / "of_another_name.safetensors")
    assert model_digest(folder) != found[1]


@pytest.mark.parametrize("name", DOES_NOT)
def test_does_not_count(folder, name):
    before = model_digest(folder)
    write(folder / name)
    assert model_digest(folder) == before


def test_an_adapter_counts_with_its_base_and_that_ones_base(folder, tmp_path):
    chain = [folder, tmp_path / "first", tmp_path / "second"]
    for base, adapter in itertools.pairwise(chain):
        write(adapter / "adapter_model.safetensors", "alike")
        write(adapter / "adapter_config.json", json.dumps({"base_model_name_or_path": str(base)}))
    before = [model_digest(one) for one in chain]
    write(folder / "merges.txt")
    after = [model_digest(one) for one in chain]
    assert len({*before, *after}) == 6
    (folder / "merges.txt").unlink()
    assert [model_digest(one) for one in chain] == before
    folder.rename(tmp_path / "gone")
    with pytest.raises(
        ValueError, match=r"first is an adapter of .*model, which cannot be loaded: put that model back"
    ):
        model_digest(chain[2])


def hub_cache(cache, name, commit, **files):
    """A repository in the Hub's cache, `main` at a commit."""
    root = cache / f"models--{name.replace('/', '--')}"
    for file, content in files.items():
        write(root / "snapshots" / commit / f"{file}.json", json.dumps(content))
    write(root / "refs" / "main", commit)


def test_a_hub_id_counts_by_its_commit(folder, tmp_path):
    a, b, c = ("a" * 40, "b" * 40, "c" * 40)
    options = {"cache_dir": str(tmp_path / "cache")}
    hub_cache(tmp_path / "cache", "user/model", a, config={})
    assert model_identity("user/model", **options) == f"user/model@{a}"
    hub_cache(tmp_path / "cache", "user/model", b, config={"auto_map": {"AutoModel": "user/code--file.Class"}})
    hub_cache(tmp_path / "cache", "user/code", c, config={})
    assert model_identity("user/model", **options) == f"user/model@{b} on user/code@{c}"
    assert model_identity("user/model", revision=a, **options) == f"user/model@{a}"

    adapter = {"base_model_name_or_path": "user/model", "revision": a}
    hub_cache(tmp_path / "cache", "user/lora", c, adapter_config=adapter)
    assert model_identity("user/lora", revision="main", **options) == f"user/lora@{c} on user/model@{a}"
    hub_cache(tmp_path / "cache", "user/lora", c, adapter_config=adapter | {"revision": None})
    assert model_identity("user/lora", **options) == f"user/lora@{c} on user/model@{b} on user/code@{c}"

    write(folder / "adapter_config.json", json.dumps(adapter))
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    before = model_digest(folder, **options)
    write(folder / "adapter_config.json", json.dumps(adapter | {"revision": None}))
    on_main = model_digest(folder, **options)
    hub_cache(tmp_path / "cache", "user/model", a, config={})
    assert len({before, on_main, model_digest(folder, **options)}) == 3


def test_what_is_nowhere_is_said(tmp_path):
    with pytest.raises(ValueError, match="user/none cannot be told: the Hub is away"):
        model_identity("user/none", cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="no/such/folder is neither a folder that exists nor a model of the Hub"):
        model_identity("no/such/folder")
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        model_identity(tmp_path)


def test_a_scorer_is_its_kind_and_its_model(folder):
    assert scorer_identity(f"reward:{folder}") == f"reward:sha256:{model_digest(folder)}"
    assert scorer_identity(str(folder)) == f"sha256:{model_digest(folder)}"
    assert [scorer_identity(spec) for spec in ("random", "random:3", "constant")] == ["random", "random:3", "constant"]


def test_a_function_is_known_by_its_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    found = []
    for text in ("def judge(): return 1", "def judge(): return 2"):
        (tmp_path / "own_judge.py").write_text(text)
        found.append(scorer_identity("function:own_judge.judge"))
    digests = [
        hashlib.sha256(text.encode()).hexdigest() for text in ("def judge(): return 1", "def judge(): return 2")
    ]
    assert found == [f"function:own_judge.judge@sha256:{digest}" for digest in digests]
    assert scorer_identity("function:no_such_module.f") == "function:no_such_module.f"


def test_data_are_known_by_content_and_folders_by_their_files(tmp_path):
    write(tmp_path / "a.jsonl", "1")
    write(tmp_path / "b.jsonl", "1")
    assert data_identity(tmp_path / "a.jsonl") == data_identity(str(tmp_path / "b.jsonl"))
    found = []
    for name, text in (("train/0.jsonl", "1"), ("train/0.jsonl", "2"), ("train/1.jsonl", "2"), ("README.md", "split")):
        write(tmp_path / "folder" / name, text)
        found.append(data_identity(tmp_path / "folder"))
    assert len({*found}) == 4
    write(tmp_path / "folder" / ".cache" / "lock")
    assert data_identity(tmp_path / "folder") == found[-1]
    os.rename(tmp_path / "folder" / "train", tmp_path / "folder" / "test")
    assert data_identity(tmp_path / "folder") not in found


@pytest.mark.parametrize("library", ["transformers", "tokenizers", "jinja2", "sentencepiece"])
def test_versions_of_what_turns_text_into_ids(monkeypatch, library):
    before = text_versions(), versions()
    number = software.version
    monkeypatch.setattr(software, "version", lambda name: "9.9" if name == library else number(name))
    after = text_versions(), versions()
    assert [found[library] for found in after] == ["9.9", "9.9"]
    assert [{**found, library: old[library]} for found, old in zip(after, before)] == list(before)
