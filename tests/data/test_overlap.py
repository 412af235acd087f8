"""Held out by prompt, and what is judged on both sides."""

import pytest

from gpm_hf.data.columns import dataset_of_rows
from gpm_hf.data.overlap import Overlap, hold_out, overlap


def pairs(prompts=20, each=3):
    return [
        {"prompt": f"question {n}", "chosen": f"good {n} {k}", "rejected": f"bad {n} {k}"}
        for k in range(each)
        for n in range(prompts)
    ]


def prompts_of(rows):
    return {str(row["prompt"]) for row in rows}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.99])
def test_no_prompt_is_on_both_sides(share):
    rows = dataset_of_rows(pairs())
    train, test = hold_out(rows, share)
    assert len(train) + len(test) == len(rows) and not prompts_of(train) & prompts_of(test)
    assert len(prompts_of(test)) == min(max(1, round(share * 20)), 19)
    # By content, not by place; another seed holds out others.
    again = hold_out(dataset_of_rows(pairs()[::-1]), share)[1]
    assert prompts_of(again) == prompts_of(test)
    if share == 0.25:
        assert prompts_of(hold_out(rows, share, seed=1)[1]) != prompts_of(test)


def test_a_prompt_is_one_however_it_is_written():
    message = [{"role": "user", "content": "q"}]
    same = [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": message, "chosen": "a", "rejected": "c"},
        {"prompt": None, "chosen": [*message, {"role": "assistant", "content": "a"}],
         "rejected": [*message, {"role": "assistant", "content": "d"}]},
    ]  # fmt: skip
    for first in same:
        for second in same:
            found = overlap(dataset_of_rows([first]), dataset_of_rows([second]))
            assert found.prompts == 1 and found.repeated == (first is second)


def test_repeated_and_contradicted_judgements_are_counted():
    one = {"prompt": "p", "chosen": "a", "rejected": "b"}
    reverse = {"prompt": "p", "chosen": "b", "rejected": "a"}
    other = {"prompt": "q", "chosen": "a", "rejected": "b"}
    assert overlap(dataset_of_rows([one, one, reverse]), dataset_of_rows([one, other])) == Overlap(1, 1, 1, 1, 1)
    assert overlap(dataset_of_rows([one]), dataset_of_rows([reverse])) == Overlap(1, 0, 1, 0, 0)
    # A soft label under 1/2 prefers the other one; a tie prefers none.
    soft = [row | {"preference_probability": p} for row, p in ((one, 0.2), (one, 0.5))]
    assert overlap(dataset_of_rows(soft), dataset_of_rows([reverse])) == Overlap(1, 1, 0, 0, 0)
    group = {"prompt": "p", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]}
    assert overlap(dataset_of_rows([group]), dataset_of_rows([one, reverse])) == Overlap(1, 1, 1, 0, 0)
    ids = {"chosen_ids": [1, 2], "rejected_ids": [1, 3], "prompt_ids": [1]}
    assert overlap(dataset_of_rows([ids]), dataset_of_rows([ids])) == Overlap(1, 1, 0, 0, 0)


def test_shares_and_single_prompts_are_refused():
    rows = dataset_of_rows(pairs(prompts=1))
    for share in (0, 1, -0.1, 2):
        with pytest.raises(ValueError, match="above 0 and below 1"):
            hold_out(rows, share)
    with pytest.raises(ValueError, match="the data have 1"):
        hold_out(rows, 0.5)
