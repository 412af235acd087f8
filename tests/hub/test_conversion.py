"""The authors' checkpoints, converted: equal to what this package saves itself, and scoring as their program does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from gpm_hf import GPMForPreference, load_preference_model, load_tokenizer
from gpm_hf.cli import main
from gpm_hf.hub.conversion import convert_reference_checkpoint
from gpm_hf.hub.publishing import publish
from gpm_hf.modeling import encode_group
from tests.conftest import BACKBONES, SHARED, backbone_config, build_gpm, build_tokenizer
from tests.loopback_hub import run_python
from tests.modeling.test_reference import CHECKPOINTS, assert_agrees

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]
RESPONSES = ["Paris.", "A city on the river Seine", "Bake it in a hot oven, then let it rest for a while"]


def head_weights(dim, gate, hidden_size=32):
    """Heads of a tiny checkpoint, as bfloat16 holds them."""
    generator = torch.Generator().manual_seed(dim)
    heads = {"value_head.weight": torch.randn(dim, hidden_size, generator=generator)}
    if gate:
        heads["prompt_head.weight"] = torch.randn(dim // 2, hidden_size, generator=generator) * 0.3
    return {name: value.bfloat16() for name, value in heads.items()}


def write_checkpoint(folder, backbone="llama", dim=4, gate=True, max_shard_size="20KB"):
    """A checkpoint as the authors publish it, in bfloat16 and in shards; the language model alone in `folder`-lm."""
    torch.manual_seed(0)
    language_model = AutoModelForCausalLM.from_config(backbone_config(backbone), dtype=torch.bfloat16)
    language_model.save_pretrained(f"{folder}-lm")
    weights = {**language_model.state_dict(), **head_weights(dim, gate)}
    language_model.save_pretrained(folder, state_dict=weights, max_shard_size=max_shard_size)
    change_json(folder / "config.json", architectures=["CustomRewardModel"])
    build_tokenizer(bos=True).save_pretrained(folder)
    return folder


def expected_model(folder, dim=4, gate=True):
    """The same model by another way: the language model alone, then the heads put on it."""
    options = {"embedding_dim": dim, "scale_gate": gate, "prompt_format": "reference"}
    model = GPMForPreference.from_backbone(f"{folder}-lm", **options, dtype=torch.bfloat16).eval()
    heads = head_weights(dim, gate)
    model.embedding_head.weight.data = heads["value_head.weight"].float()
    if gate:
        model.gate_head.weight.data = heads["prompt_head.weight"].float()
    return model


def change_json(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def weights_of(folder):
    return {name: value for file in Path(folder).glob("*.safetensors") for name, value in load_file(file).items()}


def assert_folders_equal(folder, expected):
    """File for file: code, configuration, index, and the same tensors in the same shards."""
    names = {path.name for path in expected.iterdir()}
    assert names <= {path.name for path in folder.iterdir()}
    assert {path.name for path in folder.glob("*.safetensors")} == {
        path.name for path in expected.glob("*.safetensors")
    }
    for name in names:
        if name.endswith(".safetensors"):
            ours, theirs = load_file(folder / name), load_file(expected / name)
            assert ours.keys() == theirs.keys()
            assert [key for key in ours if ours[key].dtype != theirs[key].dtype] == []
            assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []
        else:
            assert (folder / name).read_text() == (expected / name).read_text(), name


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "checkpoint", max_shard_size="1GB")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A bfloat16 checkpoint in shards, the folder it was converted to, and the report."""
    root = tmp_path_factory.mktemp("converted")
    source = write_checkpoint(root / "checkpoint")
    assert len(list(source.glob("*.safetensors"))) > 2
    return source, root / "gpm", convert_reference_checkpoint(source, root / "gpm", max_shard_size="30KB")


@pytest.mark.parametrize("backbone", [*BACKBONES, "gemma"])
@pytest.mark.parametrize(
    ("dim", "gate"), [(4, True), (6, False), (1, False)], ids=["gate", "no-gate", "bradley-terry"]
)
def test_equals_what_the_model_saves_itself(backbone, dim, gate, tmp_path):
    source = write_checkpoint(tmp_path / "checkpoint", backbone, dim, gate)
    expected_model(source, dim, gate).save_pretrained(tmp_path / "expected", max_shard_size="30KB")
    report = convert_reference_checkpoint(source, tmp_path / "gpm", max_shard_size="30KB")
    assert_folders_equal(tmp_path / "gpm", tmp_path / "expected")
    assert report.shards == len(list((tmp_path / "gpm").glob("*.safetensors"))) > 2
    assert report.total_bytes == sum(value.nbytes for value in weights_of(tmp_path / "gpm").values())


def test_one_file_equals_what_the_model_saves_itself(checkpoint, tmp_path):
    expected_model(checkpoint).save_pretrained(tmp_path / "expected")
    assert convert_reference_checkpoint(checkpoint, tmp_path / "gpm").shards == 1
    assert not (tmp_path / "gpm" / "model.safetensors.index.json").exists()
    assert_folders_equal(tmp_path / "gpm", tmp_path / "expected")


def test_backbone_in_the_saved_type_and_heads_in_float32(converted):
    _, folder, report = converted
    weights = weights_of(folder)
    assert weights.keys() == build_gpm(embedding_dim=4).state_dict().keys()
    types = {name: value.dtype for name, value in weights.items()}
    assert types.pop("embedding_head.weight") == types.pop("gate_head.weight") == torch.float32
    assert set(types.values()) == {torch.bfloat16}
    assert report.dtype == json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"


def test_backbone_of_two_types_loses_nothing(checkpoint, tmp_path):
    """Norms in float32 are common; transformers loads the whole backbone in one type."""
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = torch.linspace(0.5, 1.5, 32)
    save_file(weights, file)
    assert convert_reference_checkpoint(checkpoint, tmp_path / "gpm").dtype == "float32"
    model = GPMForPreference.from_pretrained(tmp_path / "gpm", dtype="auto")
    assert torch.equal(model.model.norm.weight, weights["model.norm.weight"])
    assert torch.equal(model.model.embed_tokens.weight, weights["model.embed_tokens.weight"].float())


def test_scores_as_the_model_does(converted):
    source, folder, _ = converted
    tokenizer = build_tokenizer(bos=True)
    expected = expected_model(source).preference_scores(tokenizer, PROMPT, RESPONSES)
    model = load_preference_model(str(folder), dtype="auto")
    assert torch.equal(model.preference_scores(load_tokenizer(str(folder)), PROMPT, RESPONSES), expected)
    assert expected.abs().max() > 0.1, "scores near zero show nothing"


def test_configuration(converted, tmp_path):
    source, folder, _ = converted
    config = json.loads((folder / "config.json").read_text())
    assert (config["prompt_format"], config["tau"], config["gate_activation"]) == ("reference", 0.1, "softmax")
    assert config["architectures"] == ["GPMForPreference"]
    assert config["text_config"]["architectures"] == ["LlamaForCausalLM"]
    for file in folder.glob("*.json"):
        assert str(source.parent) not in file.read_text(), file
    convert_reference_checkpoint(source, tmp_path / "gpm", tau=0.5)
    assert json.loads((tmp_path / "gpm" / "config.json").read_text())["tau"] == 0.5


def test_report_says_what_was_mapped(converted):
    source, folder, report = converted
    assert report.heads == {"value_head.weight": (4, 32), "prompt_head.weight": (2, 32)}
    assert report.dropped == ("lm_head.weight",)
    assert report.backbone_tensors == len(weights_of(source)) - 3
    assert (report.embedding_dim, report.scale_gate, report.commit) == (4, True, None)
    text = str(report)
    assert "value_head.weight (4, 32) -> embedding_head.weight" in text
    assert "prompt_head.weight (2, 32) -> gate_head.weight" in text
    assert "dropped: lm_head.weight" in text and str(folder) in text


def test_tokenizer_is_copied_and_nothing_else(checkpoint, tmp_path):
    for name in ("generation_config.json", "modeling_evil.py", "pytorch_model.bin", "trainer_state.json"):
        (checkpoint / name).write_text("{}")
    report = convert_reference_checkpoint(checkpoint, tmp_path / "gpm")
    expected_model(checkpoint).save_pretrained(tmp_path / "expected")
    added = {path.name for path in (tmp_path / "gpm").iterdir()} - {
        path.name for path in (tmp_path / "expected").iterdir()
    }
    assert set(report.copied) == {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert added == {*report.copied, "README.md", "gpm_run.json"}
    for name in report.copied:
        assert (tmp_path / "gpm" / name).read_bytes() == (checkpoint / name).read_bytes()


def test_a_converted_checkpoint_has_a_card_and_is_pushed_with_it(checkpoint, tmp_path):
    convert_reference_checkpoint(checkpoint, tmp_path / "gpm")
    card = ModelCard.load(tmp_path / "gpm" / "README.md")
    assert "Converted from a local checkpoint of the paper's authors" in card.text
    assert "| embedding dimension | 4 |" in card.text and "| prompt format | reference |" in card.text
    assert "## Training" not in card.text and "Hardware" not in card.text
    assert 'AutoModel.from_pretrained("gpm", trust_remote_code=True)' in card.text
    assert str(tmp_path) not in (tmp_path / "gpm" / "gpm_run.json").read_text() + card.content
    publication = publish(tmp_path / "gpm", "me/gpm", base_model="general-preference/gpm", dry_run=True)
    assert "README.md" in publication.files
    assert publication.replaced == ["gpm_run.json, base_model: a local model -> general-preference/gpm"]


def test_old_frequencies_are_dropped(checkpoint, tmp_path):
    file = checkpoint / "model.safetensors"
    save_file({**load_file(file), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, file)
    report = convert_reference_checkpoint(checkpoint, tmp_path / "gpm")
    assert report.dropped == ("lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq")


class TestAuthorsNumbers:
    """The fixtures hold what the authors' own program computed."""

    @pytest.fixture(params=CHECKPOINTS)
    def reference(self, request, shared, tmp_path):
        source = shared / "fixtures" / request.param
        convert_reference_checkpoint(source, tmp_path / "gpm", max_shard_size="100KB")
        return tmp_path / "gpm", json.loads((source / "expected.json").read_text())

    @staticmethod
    def check(model, tokenizer, expected):
        chats = expected["chats"]
        for chat in chats:
            assert_agrees(chat, *model.embed(tokenizer, chat["prompt"], chat["responses"], batch_size=1))
        groups = [encode_group(tokenizer, chat["prompt"], chat["responses"], "reference") for chat in chats]
        assert len({len(ids) for group in groups for ids in group.sequences}) > 4
        for batch_size in (3, 16):
            for chat, result in zip(chats, model.embed_groups(groups, batch_size)):
                assert_agrees(chat, *result)

    def test_before_and_after_saving(self, reference, tmp_path):
        folder, expected = reference
        tokenizer = load_tokenizer(str(folder))
        model = load_preference_model(str(folder))
        self.check(model, tokenizer, expected)
        model.save_pretrained(tmp_path / "again")
        self.check(load_preference_model(str(tmp_path / "again")), tokenizer, expected)

    def test_log_odds(self, reference):
        folder, expected = reference
        model, tokenizer = load_preference_model(str(folder)), load_tokenizer(str(folder))
        for chat in expected["chats"]:
            scores = model.preference_scores(tokenizer, chat["prompt"], chat["responses"])
            if "rewards" in chat:
                raw = np.subtract.outer(chat["rewards"], chat["rewards"])
            else:
                raw = np.array(chat["scores"])
            np.testing.assert_allclose(scores.numpy() * expected["tau"], raw, rtol=1e-6, atol=1e-5)

    def test_interpreter_without_the_package(self, shared, stranger):
        for name in CHECKPOINTS:
            chats = json.loads((shared / "fixtures" / name / "expected.json").read_text())["chats"]
            for answer in stranger[name]:
                for chat, one in zip(chats, answer, strict=True):
                    scales = None if one["scales"] is None else torch.tensor(one["scales"])
                    assert_agrees(chat, torch.tensor(one["embeddings"]), scales)


# Runs where `gpm_hf` cannot be imported: embeds every chat with the folder as it is, and saved again.
STRANGER = """
import json, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "gpm_hf":
            raise ImportError("gpm_hf is not installed here")

sys.meta_path.insert(0, NoPackage())
import torch
from transformers import AutoModel, AutoTokenizer

torch.set_num_threads(1)
answers = {}
for folder, chats in json.load(open("jobs.json")):
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    model.save_pretrained(folder + "-again")
    again = AutoModel.from_pretrained(folder + "-again", trust_remote_code=True)
    answers[folder] = []
    for one in (model, again):
        assert type(one).__module__.startswith("transformers_modules."), type(one).__module__
        results = [one.embed(tokenizer, chat["prompt"], chat["responses"]) for chat in chats]
        answers[folder].append([
            {"embeddings": embeddings.tolist(), "scales": None if scales is None else scales.tolist()}
            for embeddings, scales in results
        ])
json.dump(answers, open("answers.json", "w"))
"""


@pytest.fixture(scope="module")
def stranger(converted, tmp_path_factory):
    """
    Name -> embeddings and scales of its chats, by the folder as converted and as saved again; one process for our own
    checkpoint and, where they are at hand, the authors': its imports are slow.
    """
    root = tmp_path_factory.mktemp("stranger")
    sources = {"own": converted[0]}
    jobs = [("own", [{"prompt": PROMPT, "responses": RESPONSES}])]
    for name in CHECKPOINTS if SHARED.is_dir() else []:
        sources[name] = SHARED / "fixtures" / name
        jobs.append((name, json.loads((sources[name] / "expected.json").read_text())["chats"]))
    for name, source in sources.items():
        convert_reference_checkpoint(source, root / name, max_shard_size="30KB")
    (root / "jobs.json").write_text(json.dumps(jobs))
    environment = {**os.environ, "HF_HOME": str(root / "hf_home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STRANGER]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((root / "answers.json").read_text())


def test_interpreter_without_the_package(converted, stranger):
    embeddings, scales = expected_model(converted[0]).embed(build_tokenizer(bos=True), PROMPT, RESPONSES)
    for answer in stranger["own"]:
        np.testing.assert_allclose(answer[0]["embeddings"], embeddings.numpy(), atol=1e-5)
        np.testing.assert_allclose(answer[0]["scales"], scales.numpy(), atol=1e-5)


class TestNotACheckpoint:
    @staticmethod
    def refused(source, tmp_path, match, **options):
        """Refused for the reason given, and nothing is left of the attempt."""
        target = tmp_path / "out" / "gpm"
        with pytest.raises(ValueError, match=match):
            convert_reference_checkpoint(source, target, **options)
        assert list(target.parent.iterdir()) == []

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"value_head.weight": None}, r"plain language model.*from_backbone"),
            ({"value_head.weight": None, "score.weight": (1, 32)}, r"no value_head\.weight.*score\.weight"),
            ({"value_head.weight": (3, 32)}, "dimension 3"),
            ({"value_head.weight": (4, 16)}, r"\(4, 16\).*hidden_size=32"),
            ({"value_head.weight": (4,)}, "hidden_size=32"),
            ({"prompt_head.weight": (3, 32)}, r"\(3, 32\).*2 blocks, \(2, 32\)"),
            ({"value_head.weight": (1, 32), "prompt_head.weight": (1, 32)}, "Bradley-Terry reward .* no scale gate"),
            ({"score.weight": (1, 32), "v_head.bias": (1,)}, r"has not: score\.weight, v_head\.bias"),
            ({"model.extra.weight": (1, 32)}, r"not the LlamaModel .*it also has model\.extra\.weight"),
            ({"model.layers.1.mlp.up_proj.weight": None}, r"it lacks model\.layers\.1\.mlp\.up_proj\.weight\."),
            ({"model.embed_tokens.weight": (401, 32)}, r"embed_tokens\.weight \(401, 32\) instead of \(400, 32\)"),
        ],
        ids=lambda value: None if isinstance(value, str) else "-".join(value),
    )
    def test_weights(self, changes, match, checkpoint, tmp_path):
        file = checkpoint / "model.safetensors"
        weights = {name: value for name, value in load_file(file).items() if changes.get(name, ()) is not None}
        save_file({**weights, **{name: torch.ones(shape) for name, shape in changes.items() if shape}}, file)
        self.refused(checkpoint, tmp_path, match)

    def test_quantised(self, checkpoint, tmp_path):
        file = checkpoint / "model.safetensors"
        weights = load_file(file)
        weights["model.layers.0.mlp.up_proj.weight"] = weights["model.layers.0.mlp.up_proj.weight"].to(torch.int8)
        save_file(weights, file)
        self.refused(checkpoint, tmp_path, r"up_proj\.weight .*I8.*quantis")

    @pytest.mark.parametrize(
        ("config", "match"),
        [
            ({"model_type": "bert"}, "encoder"),
            ({"model_type": "t5"}, "encoder-decoder"),
            ({"model_type": "vit"}, "not a causal language model"),
            ({"model_type": "llava"}, "multimodal"),
            ({"model_type": "made_up"}, "'made_up'.*does not know"),
            ({}, "None.*does not know"),
            ([], "no JSON object"),
        ],
        ids=str,
    )
    def test_architecture(self, config, match, checkpoint, tmp_path):
        (checkpoint / "config.json").write_text(json.dumps(config))
        self.refused(checkpoint, tmp_path, match)

    def test_no_code_of_a_checkpoint_is_run(self, checkpoint, tmp_path):
        """Neither of its configuration nor of its tokenizer."""
        (checkpoint / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
        change_json(checkpoint / "config.json", auto_map={"AutoConfig": "evil.Config"}, model_type="evil")
        self.refused(checkpoint, tmp_path, "'evil'")
        change_json(checkpoint / "config.json", model_type="llama")
        change_json(checkpoint / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]})
        try:
            convert_reference_checkpoint(checkpoint, tmp_path / "gpm")
        except ValueError as error:
            assert "tokenizer" in str(error)
        assert not (tmp_path / "ran").exists()

    def test_model_of_this_package(self, tmp_path):
        build_gpm(embedding_dim=4).save_pretrained(tmp_path / "saved")
        self.refused(tmp_path / "saved", tmp_path, "already is a preference model")

    def test_pickled_weights(self, checkpoint, tmp_path):
        (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
        self.refused(checkpoint, tmp_path, r"Only safetensors.*save_file")

    def test_truncated_file(self, checkpoint, tmp_path):
        file = checkpoint / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        self.refused(checkpoint, tmp_path, "no whole safetensors file")

    def test_two_checkpoints_in_one_folder(self, tmp_path):
        source = write_checkpoint(tmp_path / "checkpoint")
        save_file(head_weights(4, True), source / "model.safetensors")
        self.refused(source, tmp_path, "remove the one")

    def test_missing_shard(self, tmp_path):
        source = write_checkpoint(tmp_path / "checkpoint")
        shard = min(source.glob("*.safetensors"))
        shard.unlink()
        self.refused(source, tmp_path, f"index names {shard.name}, which is missing")

    @pytest.mark.parametrize(
        "name", ["../model.safetensors", "/model.safetensors", "model.bin", "a\\b.safetensors", 3]
    )
    def test_index_that_leads_elsewhere(self, name, tmp_path):
        source = write_checkpoint(tmp_path / "checkpoint")
        save_file(head_weights(4, True), tmp_path / "model.safetensors")
        change_json(source / "model.safetensors.index.json", weight_map={"value_head.weight": name})
        self.refused(source, tmp_path, "no weight file beside it")

    def test_index_of_other_tensors(self, tmp_path):
        source = write_checkpoint(tmp_path / "checkpoint")
        index = json.loads((source / "model.safetensors.index.json").read_text())
        weight_map = {**index["weight_map"], "model.layers.7.mlp.up_proj.weight": min(index["weight_map"].values())}
        change_json(source / "model.safetensors.index.json", weight_map=weight_map)
        self.refused(source, tmp_path, r"names model\.layers\.7\.mlp\.up_proj\.weight, but no file")

    @pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": 3}'])
    def test_broken_index(self, index, checkpoint, tmp_path):
        (checkpoint / "model.safetensors.index.json").write_text(index)
        self.refused(checkpoint, tmp_path, "no weight map")

    def test_tokenizer(self, checkpoint, tmp_path):
        (checkpoint / "chat_template.jinja").unlink()
        self.refused(checkpoint, tmp_path, "no chat template")
        tokenizer = build_tokenizer()
        tokenizer.eos_token = None
        tokenizer.save_pretrained(checkpoint)
        self.refused(checkpoint, tmp_path, "no EOS")
        (checkpoint / "tokenizer.json").unlink()
        self.refused(checkpoint, tmp_path, "no tokenizer")

    def test_folders(self, checkpoint, tmp_path):
        self.refused(tmp_path / "nothing" / "at" / "all", tmp_path, "neither a folder that exists nor a Hub id")
        (tmp_path / "empty").mkdir()
        self.refused(tmp_path / "empty", tmp_path, r"no config\.json")
        with pytest.raises(FileExistsError, match="exists already"):
            convert_reference_checkpoint(checkpoint, checkpoint)

    def test_options(self, checkpoint, tmp_path):
        self.refused(checkpoint, tmp_path, "tau=0", tau=0)
        self.refused(checkpoint, tmp_path, "apples", max_shard_size="5 apples")
        self.refused(checkpoint, tmp_path, "no revision 'v1'", revision="v1")


def test_interrupted_writing_leaves_nothing(converted, tmp_path, monkeypatch):
    def full_disk(shard, file, **options):
        if "00002" in file.name:
            raise OSError("No space left on device")
        save_file(shard, file, **options)

    monkeypatch.setattr("gpm_hf.hub.conversion.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        convert_reference_checkpoint(converted[0], tmp_path / "gpm", max_shard_size="30KB")
    assert list(tmp_path.iterdir()) == []


def test_command(converted, tmp_path, capsys):
    source, _, _ = converted
    assert main(["convert", str(source), str(tmp_path / "gpm"), "--tau", "0.2", "--max-shard-size", "30KB"]) == 0
    out = capsys.readouterr().out
    assert "value_head.weight (4, 32) -> embedding_head.weight" in out and "dropped: lm_head.weight" in out
    config = json.loads((tmp_path / "gpm" / "config.json").read_text())
    assert config["tau"] == 0.2
    assert len(list((tmp_path / "gpm").glob("*.safetensors"))) > 2


PUSH = """
    import sys
    from huggingface_hub import HfApi
    api = HfApi()
    for name, folder in zip(("public", "secret", "plain"), (sys.argv[1], sys.argv[1], sys.argv[2])):
        api.create_repo(f"alice/{name}", private=name == "secret")
        print(api.upload_folder(repo_id=f"alice/{name}", folder_path=folder).oid)
    api.upload_file(repo_id="alice/public", path_or_fileobj=b"{}", path_in_repo="config.json")
"""

CONVERT = """
    import sys
    from gpm_hf.hub.conversion import convert_reference_checkpoint
    root, revision = sys.argv[1:]
    for name, options in {
        "secret without a token": {}, "plain": {}, "public of now": {},
        "public": {"revision": revision}, "secret": {"token": "hf_alice"},
    }.items():
        try:
            print(convert_reference_checkpoint(f"alice/{name.split()[0]}", f"{root}/{name}", **options).commit)
        except (ValueError, OSError) as error:
            print(type(error).__name__, " ".join(str(error).split()))
"""


@pytest.mark.slow
def test_from_the_hub(hub_server, converted, tmp_path):
    source, folder, _ = converted
    push = tmp_path / "push"
    shutil.copytree(source, push)
    (push / "modeling_evil.py").write_text("raise SystemExit")
    (push / "pytorch_model.bin").write_bytes(b"pickle")
    (push / "extra").mkdir()
    (push / "extra" / "model.safetensors").write_bytes(b"x")
    plain = tmp_path / "plain"
    AutoModelForCausalLM.from_pretrained(f"{source}-lm").save_pretrained(plain, max_shard_size="20KB")
    public, secret, _ = run_python(hub_server, PUSH, push, plain, token="hf_alice").stdout.split()

    hub_server.requests.clear()
    out = tmp_path / "out"
    lines = run_python(hub_server, CONVERT, out, public).stdout.splitlines()
    assert lines[0].startswith("RepositoryNotFoundError")
    assert lines[1].startswith("ValueError alice/plain has no value_head.weight, so it is a plain language model")
    assert "None, which this version" in lines[2], "the newest revision has an empty configuration"
    assert lines[3:] == [public, secret]
    assert {path.name for path in out.iterdir()} == {"public", "secret"}
    expected = weights_of(folder)
    for name in ("public", "secret"):
        weights = weights_of(out / name)
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in expected)

    shards = len(list(source.glob("*.safetensors")))
    assert len(hub_server.matching(r"HEAD /alice/public/resolve/.*\.safetensors$")) == shards
    assert hub_server.matching(r"/alice/plain/resolve/.*\.safetensors$") == [], "refused before its weights"
    assert hub_server.matching(r"/resolve/.*(\.py|\.bin|extra)") == []


# Writes a checkpoint of about 200 MB in two files, converts it, and prints by how many MB memory grew.
MEMORY = """
import json, sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from gpm_hf.hub.conversion import convert_reference_checkpoint

torch.set_num_threads(1)
root = Path(sys.argv[1])
config = AutoConfig.for_model(
    "llama", vocab_size=400, hidden_size=1024, intermediate_size=3072, num_hidden_layers=8, num_attention_heads=8,
    num_key_value_heads=4, pad_token_id=0, bos_token_id=2, eos_token_id=1,
)
with torch.device("meta"):
    shapes = {name: value.shape for name, value in AutoModelForCausalLM.from_config(config).state_dict().items()}
shapes |= {"value_head.weight": (6, 1024), "prompt_head.weight": (3, 1024)}
config.save_pretrained(root / "checkpoint")
names = sorted(shapes)
weight_map = {}
for number, part in enumerate((names[::2], names[1::2])):
    file = f"model-{number}.safetensors"
    weights = {name: torch.full(shapes[name], 0.5, dtype=torch.bfloat16) for name in part}
    save_file(weights, root / "checkpoint" / file)
    del weights
    weight_map |= dict.fromkeys(part, file)
(root / "checkpoint" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

def memory(field):
    lines = dict(line.split(":") for line in open("/proc/self/status"))
    return int(lines[field].split()[0]) / 1000

convert_reference_checkpoint(root / "tiny", root / "first")  # loads what is loaded once
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = memory("VmRSS")
report = convert_reference_checkpoint(root / "checkpoint", root / "gpm", max_shard_size="20MB")
print(json.dumps({"grew": memory("VmHWM") - before, "wrote": report.total_bytes / 1e6, "shards": report.shards}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_one_shard(tmp_path):
    write_checkpoint(tmp_path / "tiny")
    (tmp_path / "checkpoint").mkdir()
    build_tokenizer().save_pretrained(tmp_path / "checkpoint")
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["wrote"] > 180 and measured["shards"] > 8
    assert 0 < measured["grew"] < 35, "more than one shard of 20 MB"
