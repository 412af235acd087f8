"""The clients of docs/serving.md, called as verl 0.9.1 and ms-swift 4.6.0 call them."""

import inspect
import sys
import types

import pytest

from gpm_hf.serving import load_served
from gpm_hf.serving.app import build_app
from tests.conftest import build_tokenizer
from tests.documents.blocks import ROOT, blocks_of
from tests.serving.groups import KINDS, groups_of_eight, save_model
from tests.serving.servers import app_in_thread


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients") / "gpm"
    model = save_model(folder, **KINDS["gate"])
    with app_in_thread(build_app(load_served(str(folder)))) as url:
        yield url, model


def client(library):
    """The names that the document's file of a library defines."""
    (block,) = [one for one in blocks_of(ROOT / "docs" / "serving.md") if one.text.startswith(f"# {library} ")]
    names = {}
    exec(compile(block.text, block.place, "exec"), names)
    return names


def test_verl(served, monkeypatch):
    url, model = served
    monkeypatch.setenv("GPM_URL", url)
    compute_score = client("verl")["compute_score"]
    assert not inspect.iscoroutinefunction(compute_score)  # else it would be awaited
    (prompt,), (responses,) = groups_of_eight(1)
    messages = [{"role": "user", "content": prompt}]
    sample = {
        "data_source": "my/data",
        "solution_str": responses[0],
        "ground_truth": "",
        # verl adds the last two.
        "extra_info": {
            "prompt": messages,
            "references": responses[1:4],
            "num_turns": None,
            "rollout_reward_scores": {},
        },
    }
    expected = float(model.preference_scores(build_tokenizer(), messages, responses[:4])[0, 1:].mean())
    assert compute_score(**sample) == pytest.approx(expected, abs=5e-4)
    # With a reward model of its own beside it verl gives these too.
    own = {"reward_router_address": "127.0.0.1:1", "reward_model_tokenizer": None}
    assert compute_score(**sample, **own) == pytest.approx(expected, abs=5e-4)
    assert compute_score(**{**sample, "solution_str": " "}) == -10


def test_ms_swift(served, monkeypatch):
    url, model = served
    monkeypatch.setenv("GPM_URL", url)

    class ORM:
        def __init__(self, args=None, **kwargs):
            self.args = args

    rewards = types.SimpleNamespace(ORM=ORM, orms={})
    monkeypatch.setitem(sys.modules, "swift", types.SimpleNamespace(rewards=rewards))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    client("ms-swift")
    function = rewards.orms["gpm"](args=None)
    assert not inspect.iscoroutinefunction(type(function).__call__)
    prompts, groups = groups_of_eight(2)
    rows = [(prompt, response) for prompt, group in zip(prompts, groups) for response in (*group[:4], "")]
    rows = rows[::2] + rows[1::2]  # not group by group
    messages = [
        [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": response},
        ]
        for prompt, response in rows
    ]
    # Columns as `OnPolicySample.to_reward_row` makes them.
    columns = {
        "messages": messages,
        "prompt_id": [f"p{number}" for number in range(10)],
        "request_id": [f"r{number}" for number in range(10)],
        "finish_reason": ["stop"] * 10,
        "is_truncated": [False] * 10,
        "rollout_infos": [{}] * 10,
        "response_token_ids": [[]] * 10,
    }
    found = function([turns[-1]["content"] for turns in messages], trainer_state=None, **columns)
    expected = {}
    for prompt, group in zip(prompts, groups):
        asked = messages[[row[0] for row in rows].index(prompt)][:2]
        means = model.preference_scores(build_tokenizer(), asked, group[:4]).mean(-1)
        expected |= {(prompt, response): mean for response, mean in zip(group, means.tolist())}
    for row, reward in zip(rows, found):
        assert reward is None if not row[1] else reward == pytest.approx(expected[row], abs=5e-4)
    assert function(["", " "], messages=messages[:2]) == [None, None]
