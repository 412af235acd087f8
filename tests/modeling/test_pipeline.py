"""`pipeline("preference")`: numbers equal to the model's, here and for a stranger; batches, streams, errors, a pin."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from transformers import AutoConfig, pipeline

import gpm_hf  # noqa: F401 (it registers the task)
from gpm_hf.modeling import EncodedGroup, GPMForPreference, PreferencePipeline, collate_groups, encode_group
from tests.conftest import backbone_config, build_gpm, build_tokenizer
from tests.loopback_hub import HubServer, run_python
from tests.modeling.test_reference import CHECKPOINTS, load_reference

CHAT = [
    {"role": "system", "content": "A good answer is short and clear."},
    {"role": "user", "content": "How do I bake bread?"},
]
REPLY = [{"role": "assistant", "content": "Mix flour, water, salt and yeast, let the dough rest, then bake it."}]
GROUPS = [
    {"prompt": "What is the capital of France?", "responses": ["Paris.", "A city on the river Seine", "Bake it"]},
    {"prompt": "red", "responses": ["Red, green and blue beat each other in a ring: rock, paper, scissors.", "Blue"]},
    {"prompt": CHAT, "responses": [REPLY, "Let the dough rest, then bake it in a hot oven. " * 3, "0", "1 2 3"]},
    {"prompt": "One?", "responses": ["one"]},
    {"prompt": "How do I bake bread? " * 6, "responses": ["Mix flour", "Water", "Salt", "Yeast", "and wait a while"]},
]
TEXT_GROUPS = [group for group in GROUPS if isinstance(group["prompt"], str)]
KINDS = {
    "with gate": {"embedding_dim": 4},
    "without gate": {"embedding_dim": 6, "scale_gate": False},
    # At tau = 0.1 the rounding errors of rewards, which have no norm of 1, would be above 1e-5.
    "Bradley-Terry": {"embedding_dim": 1, "tau": 1.0},
    "with reward head": {"embedding_dim": 2, "reward_head": True, "tau": 1.0},
    "reference": {"embedding_dim": 4, "prompt_format": "reference"},
}
KEYS = {"scores", "probabilities", "ranking", "winner", "has_cycle"}


def judge_of(model, tokenizer, **options):
    return pipeline("preference", model=model, tokenizer=tokenizer, device="cpu", **options)


def expected_scores(model, tokenizer, groups):
    return [model.preference_scores(tokenizer, group["prompt"], group["responses"]) for group in groups]


def assert_scores(results, expected):
    assert len(results) == len(expected)
    for result, scores in zip(results, expected, strict=True):
        assert set(result) == KEYS
        torch.testing.assert_close(torch.tensor(result["scores"]), scores, atol=5e-5, rtol=0)


def count_forwards(model, calls):
    """A hook that notes how many sequences each forward of the backbone has."""
    return model.model.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.replace(" ", "-"))
def model(request):
    return build_gpm(**KINDS[request.param])


class TestNumbers:
    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    def test_equal_the_model_whatever_the_batch(self, model, tokenizer, batch_size):
        expected = expected_scores(model, tokenizer, GROUPS)
        judge = judge_of(model, tokenizer)
        assert max(scores.abs().max() for scores in expected) > 0.5, "scores near zero show nothing"
        assert_scores(judge(GROUPS, batch_size=batch_size), expected)
        assert_scores(judge(GROUPS[::-1], batch_size=batch_size), expected[::-1])

    def test_one_group_gives_one_dict_of_plain_values(self, model, tokenizer):
        group = GROUPS[0]
        result = judge_of(model, tokenizer)(group)
        assert_scores([result], expected_scores(model, tokenizer, [group]))
        assert json.loads(json.dumps(result)) == result
        assert {type(value) for row in result["scores"] + result["probabilities"] for value in row} == {float}
        assert {type(index) for index in result["ranking"]} == {int}
        assert type(result["has_cycle"]) is bool

    def test_probabilities_and_ranking_by_hand(self, model, tokenizer):
        for result in judge_of(model, tokenizer)(GROUPS):
            size = len(result["scores"])
            for scores, probabilities in zip(result["scores"], result["probabilities"], strict=True):
                assert probabilities == pytest.approx([1 / (1 + math.exp(-score)) for score in scores], abs=1e-6)
            means = [sum(scores) / size for scores in result["scores"]]
            assert result["ranking"] == sorted(range(size), key=lambda index: -means[index])
            winners = [i for i, row in enumerate(result["scores"]) if sum(score > 0 for score in row) == size - 1]
            assert result["winner"] == (winners[0] if winners else None)

    def test_bradley_terry_by_hand(self, tokenizer):
        model = build_gpm(embedding_dim=1)
        for group, result in zip(GROUPS, judge_of(model, tokenizer)(GROUPS), strict=True):
            rewards = model.embed(tokenizer, group["prompt"], group["responses"])[0][:, 0].tolist()
            raw = [[(first - second) / 0.1 for second in rewards] for first in rewards]
            torch.testing.assert_close(torch.tensor(result["scores"]), torch.tensor(raw), atol=1e-4, rtol=0)
            assert result["ranking"] == sorted(range(len(rewards)), key=lambda index: -rewards[index])
            assert result["winner"] == rewards.index(max(rewards))
            assert result["has_cycle"] is False

    def test_one_response(self, model, tokenizer):
        assert judge_of(model, tokenizer)({"prompt": "One?", "responses": ["one"]}) == {
            "scores": [[0.0]],
            "probabilities": [[0.5]],
            "ranking": [0],
            "winner": 0,
            "has_cycle": False,
        }

    def test_a_ring_has_a_cycle_and_no_winner(self, tokenizer):
        """The head is solved for so that the embeddings lie at 0, 120 and 240 degrees: each beats the next."""
        group = GROUPS[0]
        model = build_gpm(embedding_dim=2, scale_gate=False)
        batch = collate_groups([encode_group(tokenizer, **group)], pad_token_id=0, with_prompts=False)
        with torch.no_grad():
            states = model(**batch).response_states
            angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
            model.embedding_head.weight.copy_(
                (torch.linalg.pinv(states) @ torch.stack([angles.cos(), angles.sin()], 1)).T
            )
        result = judge_of(model, tokenizer)(group)
        edge = math.sin(2 * math.pi / 3) / 0.1
        ring = [[0, edge, -edge], [-edge, 0, edge], [edge, -edge, 0]]
        torch.testing.assert_close(torch.tensor(result["scores"]), torch.tensor(ring), atol=1e-3, rtol=0)
        assert (result["has_cycle"], result["winner"]) == (True, None)
        assert sorted(result["ranking"]) == [0, 1, 2]
        pair = {**group, "responses": group["responses"][:2]}
        assert [judge_of(model, tokenizer)(pair)[name] for name in ("has_cycle", "winner")] == [False, 0]

    @pytest.mark.parametrize("name", CHECKPOINTS)
    def test_checkpoints_of_the_authors(self, shared, name):
        model, tokenizer, expected = load_reference(shared / "fixtures" / name)
        chats = expected["chats"]
        results = judge_of(model, tokenizer)(
            [{key: chat[key] for key in ("prompt", "responses")} for chat in chats], batch_size=3
        )
        for chat, result in zip(chats, results, strict=True):
            if "rewards" in chat:
                raw = [[first - second for second in chat["rewards"]] for first in chat["rewards"]]
            else:
                raw = chat["scores"]
            # Raw scores: to 1e-5, as the numbers that were published with the checkpoints.
            torch.testing.assert_close(torch.tensor(result["scores"]) * 0.1, torch.tensor(raw), atol=1e-5, rtol=1e-6)


class TestTokenizers:
    @pytest.mark.parametrize("kind", ["left", "right", "pad is EOS", "no pad token"])
    def test_padding_does_not_matter(self, kind, tokenizer):
        model = build_gpm(embedding_dim=4)
        other = build_tokenizer(padding_side="left" if kind == "left" else "right", pad_is_eos=kind == "pad is EOS")
        if kind == "no pad token":
            other.pad_token = None
            assert other.pad_token_id is None
        expected = expected_scores(model, tokenizer, GROUPS)
        assert_scores(judge_of(model, other)(GROUPS, batch_size=8), expected)

    def test_plain_text(self, plain_tokenizer):
        """A prompt that ends in a blank merges with the response, and is then encoded by itself for the gate."""
        model = build_gpm(embedding_dim=4)
        groups = [*TEXT_GROUPS, {"prompt": "The capital is ", "responses": ["Paris", " Paris", "in France"]}]
        expected = expected_scores(model, plain_tokenizer, groups)
        assert_scores(judge_of(model, plain_tokenizer)(groups, batch_size=8), expected)

    def test_without_a_prompt(self, tokenizer):
        group = {"prompt": None, "responses": [CHAT + REPLY, [CHAT[1], *REPLY]]}
        model = build_gpm(embedding_dim=4, scale_gate=False)
        assert_scores([judge_of(model, tokenizer)(group)], expected_scores(model, tokenizer, [group]))
        with pytest.raises(ValueError, match="Give an explicit prompt"):
            judge_of(build_gpm(embedding_dim=4), tokenizer)(group)


class Rows(Dataset):
    def __len__(self):
        return len(GROUPS)

    def __getitem__(self, index):
        return GROUPS[index]


class Table:
    """Neither a list nor one of torch's data sets, like those of `datasets`."""

    def __iter__(self):
        return iter(GROUPS)


class TestInputs:
    @pytest.fixture(scope="class")
    def judge(self, gpm, tokenizer):
        return judge_of(gpm, tokenizer)

    @pytest.fixture(scope="class")
    def expected(self, gpm, tokenizer):
        return expected_scores(gpm, tokenizer, GROUPS)

    @pytest.mark.parametrize("batch_size", [1, 2, 8])
    @pytest.mark.parametrize("kind", ["generator", "iterator", "torch data set", "other data set"])
    def test_streams(self, kind, batch_size, judge, expected):
        inputs = {
            "generator": (group for group in GROUPS),
            "iterator": iter(GROUPS),
            "torch data set": Rows(),
            "other data set": Table(),
        }[kind]
        results = judge(inputs, batch_size=batch_size)
        assert not isinstance(results, list)
        assert_scores(list(results), expected)

    def test_a_stream_is_read_as_it_is_used(self, judge, expected):
        read = []

        def groups():
            for group in GROUPS:
                read.append(group)
                yield group

        results = iter(judge(groups(), batch_size=2))
        assert_scores([next(results)], expected[:1])
        assert len(read) == 2

    @pytest.mark.parametrize("num_workers", [1, 2])
    def test_workers(self, num_workers, judge, expected):
        assert_scores(judge(GROUPS, batch_size=2, num_workers=num_workers), expected)

    def test_a_stream_with_workers_is_read_once(self, judge, expected):
        assert_scores(list(judge(iter(GROUPS), batch_size=2, num_workers=2)), expected)

    def test_tuple_and_nothing(self, judge, expected):
        assert_scores(judge(tuple(GROUPS)), expected)
        assert judge([]) == []
        assert list(judge(iter([]))) == []

    def test_batch_size_and_max_sequences_are_in_effect(self, gpm, tokenizer, expected, monkeypatch):
        """Groups of 3, 2, 4, 1 and 5 sequences; every prompt lies inside of them, and none in a pass of its own."""
        monkeypatch.setattr(EncodedGroup, "prompt_is_worth_sharing", False)
        judge, calls = judge_of(gpm, tokenizer, batch_size=2), []
        hook = count_forwards(gpm, calls)
        try:
            assert_scores(judge(GROUPS), expected)
            assert calls == [5, 5, 5]
            calls.clear()
            assert_scores(judge(GROUPS, batch_size=8), expected)
            assert calls == [15]
            calls.clear()
            assert_scores(judge(GROUPS, batch_size=8, max_sequences=4), expected)
            assert calls == [4, 4, 4, 3]
            calls.clear()
            assert_scores(judge_of(gpm, tokenizer, max_sequences=2)(GROUPS), expected)
            assert max(calls) == 2
        finally:
            hook.remove()

    def test_a_model_in_training_stays_in_training(self, tokenizer, expected):
        model = build_gpm(embedding_dim=4).train()
        assert_scores(judge_of(model, tokenizer)(GROUPS), expected)
        assert model.training


class TestErrors:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            ("What?", r"\"prompt\".*\"responses\".*not a str"),
            (CHAT, "not a Chat"),
            ([GROUPS[0], 5], "not a int"),
            ({"prompt": "What?"}, r"missing keys: \['responses'\], unknown keys: \[\]"),
            ({"responses": ["a"]}, r"missing keys: \['prompt'\]"),
            ({"prompt": "What?", "response": ["a"]}, r"missing keys: \['responses'\], unknown keys: \['response'\]"),
            ({**GROUPS[0], "scores": [1.0]}, r"missing keys: \[\], unknown keys: \['scores'\]"),
            ({"prompt": "What?", "responses": []}, r"at least one response; the responses are \[\]"),
            ({"prompt": "What?", "responses": "a"}, "at least one response; the responses are 'a'"),
            ({"prompt": "What?", "responses": None}, "at least one response; the responses are None"),
            ({"prompt": "What?", "responses": ["a", " "]}, "Response 1 is empty"),
            ({"prompt": "What?", "responses": ["a", 3]}, "response 1 is 3"),
            ({"prompt": "What?", "responses": ["a", ["b"]]}, r"response 1 is \['b'\]"),
            ({"prompt": 3, "responses": ["a"]}, "the prompt is 3"),
            ({"prompt": [], "responses": ["a"]}, r"the prompt is \[\]"),
            ({"prompt": ["What?"], "responses": ["a"]}, r"the prompt is \['What\?'\]"),
            ({"prompt": "What? " * 300, "responses": ["a"]}, "context holds 256"),
        ],
        ids=str,
    )
    def test_says_what_is_expected(self, inputs, message, gpm, tokenizer):
        with pytest.raises(ValueError, match=message):
            judge_of(gpm, tokenizer)(inputs)

    def test_options(self, gpm, tokenizer):
        with pytest.raises(ValueError, match=r"max_sequences=0 is not possible"):
            judge_of(gpm, tokenizer, max_sequences=0)
        with pytest.raises(TypeError, match="top_k"):
            judge_of(gpm, tokenizer)(GROUPS, top_k=3)

    def test_needs_a_preference_model_and_its_tokenizer(self, gpm, tokenizer):
        language_model = torch.nn.Linear(1, 1)
        language_model.config = backbone_config()
        with pytest.raises(ValueError, match=r"general preference model, not a Linear \(llama\)"):
            judge_of(language_model, tokenizer)
        with pytest.raises(ValueError, match="needs the model's tokenizer"):
            PreferencePipeline(gpm)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("pipeline")


@pytest.fixture(scope="module")
def folders(root):
    """Kind -> a model and the folder that it was saved to with a tokenizer, whose padding is on the left."""
    saved = {}
    for kind, options in KINDS.items():
        folder = root / kind.replace(" ", "-")
        saved[kind] = (build_gpm(seed=3, **options), folder)
        saved[kind][0].save_pretrained(folder)
        build_tokenizer(padding_side="left").save_pretrained(folder)
    return saved


class TestFolder:
    def test_loads_by_the_installed_classes_with_and_without_trust(self, folders, tokenizer):
        """As the Auto classes do: with the package imported, no code of the folder runs."""
        model, folder = folders["with gate"]
        for options in ({}, {"trust_remote_code": True}, {"local_files_only": True}):
            judge = pipeline("preference", model=str(folder), device="cpu", **options)
            assert type(judge) is PreferencePipeline
            assert type(judge.model) is GPMForPreference
            assert_scores(judge(GROUPS, batch_size=2), expected_scores(model, tokenizer, GROUPS))

    def test_device_map_and_dtype(self, folders, tokenizer):
        model, folder = folders["with gate"]
        judge = pipeline("preference", model=str(folder), device_map={"": "cpu"})
        assert_scores(judge(GROUPS), expected_scores(model, tokenizer, GROUPS))
        judge = pipeline("preference", model=str(folder), dtype=torch.bfloat16, device="cpu")
        assert judge.dtype == torch.bfloat16
        assert_scores(
            judge(GROUPS),
            expected_scores(model.__class__.from_pretrained(folder, dtype=torch.bfloat16), tokenizer, GROUPS),
        )

    def test_configuration_names_the_task_and_the_file_is_there(self, folders, tmp_path):
        model, folder = folders["with gate"]
        (tmp_path / "adapter").mkdir()
        model.save_config_and_code(tmp_path / "adapter")  # what an adapter's folder gets beside its weights
        again = GPMForPreference.from_pretrained(folder)
        again.save_pretrained(tmp_path / "again")
        pipeline("preference", model=str(folder), device="cpu").save_pretrained(tmp_path / "pipeline")
        for place in (folder, *(tmp_path / name for name in ("adapter", "again", "pipeline"))):
            config = json.loads((place / "config.json").read_text())
            assert config["custom_pipelines"] == {
                "preference": {"impl": "pipeline_gpm.PreferencePipeline", "pt": ["AutoModel"]}
            }, place
            assert (place / "pipeline_gpm.py").read_text() == (folder / "pipeline_gpm.py").read_text()
        assert "custom_pipelines" not in vars(AutoConfig.from_pretrained(folder)), "`pipeline` would ask for trust"


# Runs where `gpm_hf` cannot be imported and nobody answers a question.
STRANGER = """
import json, os, sys

class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "gpm_hf":
            raise ImportError("gpm_hf is not installed here")

sys.meta_path.insert(0, NoPackage())
import torch
from huggingface_hub import HfApi
from transformers import pipeline

torch.set_num_threads(1)
job = json.load(open(sys.argv[1]))
groups = job["groups"]

def judge(name, **options):
    pipe = pipeline("preference", model=name, trust_remote_code=True, device="cpu", **options)
    assert type(pipe).__module__.startswith("transformers_modules."), type(pipe)
    assert type(pipe.model).__module__.startswith("transformers_modules."), type(pipe.model)
    return pipe

def message_of(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

report = {"folders": {}}
for name, folder in job["folders"].items():
    pipe = judge(folder)
    report["folders"][name] = [pipe(groups), pipe(groups, batch_size=8), list(pipe(iter(groups), batch_size=2))]
report["one"] = pipe(groups[0])
report["workers"] = pipe(groups, batch_size=2, num_workers=2)
report["bad"] = message_of(lambda: pipe({"prompt": "What?", "responses": []}))
pipe.save_pretrained(job["again"])
report["again"] = judge(job["again"])(groups)
report["without_trust"] = message_of(lambda: pipeline("preference", model=folder))

api = HfApi()
api.create_repo("alice/gpm")
first = api.upload_folder(repo_id="alice/gpm", folder_path=job["folders"]["with gate"]).oid
api.create_tag("alice/gpm", tag="v1", revision=first)
api.upload_folder(repo_id="alice/gpm", folder_path=job["later"])
pinned = judge("alice/gpm", revision="v1")
report["pinned"] = pinned(groups, batch_size=2)
report["pinned_modules"] = [type(one).__module__ for one in (pinned, pinned.model, pinned.model.config)]
report["first"] = first
report["unpinned"] = message_of(lambda: judge("alice/gpm"))
report["modules"] = sorted({name.split(".")[0] for name in sys.modules} & {"gpm_hf", "trl", "datasets"})
json.dump(report, open(sys.argv[2], "w"))
"""


@pytest.fixture(scope="module")
def stranger(root, folders):
    """What a fresh interpreter without the package makes of the folders, and of a repository with two commits."""
    later = root / "later"
    build_gpm(seed=4, **KINDS["with gate"]).save_pretrained(later)
    build_tokenizer().save_pretrained(later)
    for file in later.glob("*.py"):
        file.write_text(f"{file.read_text()}\nraise RuntimeError('code of the later commit')\n")
    job = {
        "groups": GROUPS,
        "folders": {kind: str(folder) for kind, (_, folder) in folders.items()},
        "again": str(root / "again"),
        "later": str(later),
    }
    (root / "job.json").write_text(json.dumps(job))
    with HubServer() as server:
        server.add_user("alice", token="hf_alice")
        run_python(server, STRANGER, root / "job.json", root / "report.json", token="hf_alice")
        assert not server.errors
    return json.loads((root / "report.json").read_text())


class TestInterpreterWithoutThePackage:
    @pytest.mark.parametrize("kind", KINDS)
    def test_scores_agree(self, kind, folders, stranger, tokenizer):
        expected = expected_scores(folders[kind][0], tokenizer, GROUPS)
        for results in stranger["folders"][kind]:
            assert_scores(results, expected)

    def test_the_rest_agrees(self, folders, stranger, tokenizer):
        kind = list(KINDS)[-1]
        model = folders[kind][0]
        ours = judge_of(model, tokenizer)(GROUPS)
        for name in ("workers", "again"):
            assert_scores(stranger[name], expected_scores(model, tokenizer, GROUPS))
            for theirs, our in zip(stranger[name], ours, strict=True):
                assert {key: theirs[key] for key in ("ranking", "winner", "has_cycle")} == {
                    key: our[key] for key in ("ranking", "winner", "has_cycle")
                }
        assert stranger["one"]["ranking"] == ours[0]["ranking"]
        assert stranger["bad"].startswith("ValueError: Give")

    def test_asks_for_trust(self, stranger):
        assert "trust_remote_code=True" in stranger["without_trust"]

    def test_a_revision_pins_weights_and_code(self, folders, stranger, tokenizer):
        """The later commit has other weights, and code that raises."""
        assert_scores(stranger["pinned"], expected_scores(folders["with gate"][0], tokenizer, GROUPS))
        for module in stranger["pinned_modules"]:
            assert stranger["first"] in module
        assert "code of the later commit" in stranger["unpinned"]

    def test_imports_neither_the_package_nor_trainers(self, stranger):
        assert stranger["modules"] == []

    def test_what_it_saved_loads_here(self, root, stranger, folders, tokenizer):
        expected = expected_scores(folders[list(KINDS)[-1]][0], tokenizer, GROUPS)
        assert_scores(pipeline("preference", model=str(root / "again"), device="cpu")(GROUPS), expected)
        assert Path(root / "again" / "pipeline_gpm.py").is_file()
