"""`/get_reward` as OpenRLHF asks it: one response in each request, of a prompt that the policy's template rendered."""

import concurrent.futures
import json

import pytest
import requests

from gpm_hf.modeling import mean_scores
from gpm_hf.serving import load_served
from gpm_hf.serving.app import Limits, build_app
from gpm_hf.serving.rewards import PolicyText
from tests.conftest import build_tokenizer
from tests.serving.groups import KINDS, groups_of_eight, save_model
from tests.serving.servers import app_in_thread


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rewards") / "gpm"
    model = save_model(folder, **KINDS["gate"])
    limits = Limits(group_size=4, group_wait=2.0)
    with app_in_thread(build_app(load_served(str(folder)), limits=limits)) as url:
        yield url, model


def rendered(prompt):
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def one_query(url, prompt, response, label=""):
    """What OpenRLHF 0.11 posts for a sample: lists of one."""
    request = {"query": [prompt + response], "prompts": [prompt], "labels": [label]}
    return requests.post(url + "/get_reward", json=request, timeout=60)


def test_samples_of_one_prompt_find_each_other(served):
    url, model = served
    prompts, groups = groups_of_eight(3)
    rows = [(prompt, response) for prompt, group in zip(prompts, groups) for response in group[:4]]
    with concurrent.futures.ThreadPoolExecutor(len(rows)) as pool:
        answers = list(
            pool.map(
                lambda row: one_query(url, rendered(row[0]), row[1] + "<|im_end|>").json(), rows[::2] + rows[1::2]
            )
        )
    found = dict(zip(rows[::2] + rows[1::2], answers))
    for prompt, group in zip(prompts, groups):
        expected = mean_scores(model.preference_scores(build_tokenizer(), prompt, group[:4])).tolist()
        for response, reward in zip(group, expected):
            answer = found[prompt, response]
            assert answer["rewards"] == answer["scores"] == [pytest.approx(reward, abs=5e-4)]
            assert answer["extra_logs"] == {}


def test_a_group_that_stays_incomplete_is_refused(served):
    url, _ = served
    answer = one_query(url, rendered("What?"), "Alone.")
    assert answer.status_code == 408 and "1 of 4 responses to this prompt arrived within 2 seconds" in answer.text
    # It has left nothing behind: the next four are a group.
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda word: one_query(url, rendered("What?"), word), ["a", "b", "c", "d"]))
    assert {answer.status_code for answer in answers} == {200}


def test_a_response_without_text_has_the_lowest_reward(served):
    """-1 / tau; the others' are those of the group without it."""
    url, model = served
    (prompt,), (group,) = groups_of_eight(1)
    responses = [group[0], "", group[1], group[2]]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda text: one_query(url, rendered(prompt), text + "<|im_end|>").json(), responses))
    found = [answer["rewards"][0] for answer in answers]
    expected = mean_scores(model.preference_scores(build_tokenizer(), prompt, group[:3])).tolist()
    assert found[1] == pytest.approx(-10)
    assert [found[0], *found[2:]] == pytest.approx(expected, abs=5e-4)
    label = {"reference_responses": group[1:4]}
    assert one_query(url, rendered(prompt), "<|im_end|>", label).json()["rewards"] == [pytest.approx(-10)]


def test_reference_answers_in_the_label(served):
    url, model = served
    (prompt,), (group,) = groups_of_eight(1)
    label = json.dumps({"reference_responses": group[1:4]})
    (reward,) = one_query(url, rendered(prompt), group[0], label).json()["rewards"]
    scores = model.preference_scores(build_tokenizer(), prompt, group[:4])
    assert reward == pytest.approx(float(scores[0, 1:].mean()), abs=5e-4)
    # The messages themselves, for prompts of several turns.
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": prompt},
    ]
    label = {"messages": messages, "reference_responses": group[1:4]}
    text = "<|im_start|>system\nBe brief.<|im_end|>\n" + rendered(prompt)
    (reward,) = one_query(url, text, group[0] + "<|im_end|>", label).json()["rewards"]
    scores = model.preference_scores(build_tokenizer(), messages, group[:4])
    assert reward == pytest.approx(float(scores[0, 1:].mean()), abs=5e-4)
    assert "more than one user message" in one_query(url, text, group[0], "").text


def test_what_the_policy_read_and_wrote():
    text = PolicyText(build_tokenizer())
    assert text.read(rendered("Why?"), rendered("Why?") + "So.<|im_end|>") == ("Why?", "So.")
    assert text.read(rendered("Why?"), rendered("Why?") + "So.\n<|im_end|>\n<eos>") == ("Why?", "So.")
    assert text.read("Why?", "Why? So.<eos>") == ("Why?", " So.")
    plain = PolicyText(build_tokenizer(chat=False))
    assert plain.read("Q: x A:", "Q: x A: y<eos>") == ("Q: x A:", " y")
    with pytest.raises(ValueError, match="another chat template"):
        plain.read(rendered("Why?"), rendered("Why?") + "So.")
