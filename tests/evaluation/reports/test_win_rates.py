"""Win rates between policies, against numbers worked out by hand."""

import json
import math

import numpy as np
import pytest

from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers
from gpm_hf.evaluation.reports.win_rates import (
    _student_low,
    cycle_lines,
    empty_line,
    measure_win_rates,
    policy_table,
    win_rate_table,
)
from gpm_hf.evaluation.statistics.length_control import length_controlled_win_rate
from tests.evaluation.scorers import FunctionScorer, table

LN3 = math.log(3)  # log-odds of 3/4


def policy(name, *responses, prompts=None):
    prompts = prompts or [f"{n + 1}?" for n in range(len(responses))]
    return PolicyAnswers(name, prompts, list(responses), [f"{name}.json, row {n + 1}" for n in range(len(responses))])


@pytest.fixture
def ranked():
    """On the first prompt a > b > c > a with 3/4 each; on the second a and b say the same, better than c by 9/10."""
    scorer = table({("a1", "b1"): LN3, ("b1", "c1"): LN3, ("c1", "a1"): LN3, ("same", "c2 long"): 2 * LN3})
    policies = [
        policy("a", "a1", "same"),
        policy("b", "same", "b1", prompts=["2?", "1?"]),
        policy("c", "c1", "c2 long"),
    ]
    return measure_win_rates(policies, scorer), scorer


def test_matrix_by_hand(ranked):
    result, scorer = ranked
    expected = [[0.5, 0.625, 0.575], [0.375, 0.5, 0.825], [0.425, 0.175, 0.5]]
    assert result.matrix == pytest.approx(np.array(expected), abs=1e-6)
    # The same answer is scored once, and ties exactly.
    assert sorted(len(group) for (group,) in [[g] for asked in scorer.asked for g in asked]) == [2, 3]
    assert result.probabilities[1, 0, 1] == 0.5 and result.forward_passes == 5
    assert result.characters.tolist() == [[2, 2, 2], [4, 4, 7]] and result.tokens is None


def test_intervals_by_hand():
    # Of five prompts a wins one at 3/4: a resample has it k times, 0 in 32.8%, 3 or more in 5.8%, 4 or more in 0.7%.
    policies = [policy("a", "x1", *"2345"), policy("b", "y1", *"2345")]
    result = measure_win_rates(policies, table({("x1", "y1"): LN3}))
    assert result.interval("a", "b") == pytest.approx((0.5, 0.65), abs=1e-6)
    assert result.interval("b", "a") == pytest.approx((0.35, 0.5), abs=1e-6)


def test_few_prompts_have_no_intervals_and_nothing_is_certain(ranked):
    result, _ = ranked
    assert result.interval("a", "b") is None and np.isnan(result.intervals[0, 1]).all()
    assert "%)" not in win_rate_table(result) + policy_table(result, "a")
    assert result.to_dict("a")["policies"]["b"]["intervals"] == {"a": None, "c": None}
    assert "win_rate_interval" not in result.card_numbers("b", "a")
    # A ring at 51.2% on one prompt, on four, and on five that agree.
    odds = math.log(0.512 / 0.488)
    ring = table({("a", "b"): odds, ("b", "c"): odds, ("c", "a"): odds})
    for prompts, certain in ((1, False), (4, False), (5, True)):
        (cycle,) = measure_win_rates([policy(name, *[name] * prompts) for name in "abc"], ring).cycles
        assert cycle.is_certain is certain
    result = measure_win_rates([policy(name, name) for name in "abc"], ring)
    assert "no intervals under 5 prompts" in cycle_lines(result) and "above" not in cycle_lines(result)


def test_few_prompts_take_students_interval():
    """Five prompts whose bootstrap interval lies above 1/2 and whose t interval does not: 0.535 - 2.776 * 0.018."""
    chances = [0.58, 0.56, 0.55, 0.495, 0.49]
    odds = {f"{n + 1}?": math.log(p / (1 - p)) for n, p in enumerate(chances)}

    def judge(prompt, first, second):
        return odds[prompt] if (first, second) in {("a", "b"), ("b", "c"), ("c", "a")} else -odds[prompt]

    result = measure_win_rates([policy(name, *[name] * 5) for name in "abc"], FunctionScorer(judge))
    (cycle,) = result.cycles
    assert cycle.win_rates == pytest.approx([0.535] * 3, abs=1e-6)
    assert result.interval("a", "b")[0] > 0.503 and not cycle.is_certain
    error = math.sqrt(sum((chance - 0.535) ** 2 for chance in chances) / 4 / 5)
    assert _student_low(np.array(chances)) == pytest.approx(0.535 - 2.776445 * error, abs=1e-6)


def test_game_and_winner_by_hand(ranked):
    result, _ = ranked
    assert result.game() == pytest.approx(result.matrix - 0.5, abs=1e-12)
    assert (result.game() == -result.game().T).all()
    assert result.winner() == pytest.approx([1, 0, 0], abs=1e-9)
    assert result.against_winner() == pytest.approx([0, -0.125, -0.075], abs=1e-6)
    # Log-odds: a - b is ln 3 / 2, a - c is (2 ln 3 - ln 3) / 2.
    assert result.game("log_odds")[0] == pytest.approx([0, LN3 / 2, LN3 / 2], abs=1e-6)
    assert result.cycles == [] and "No cycle" in cycle_lines(result)
    with pytest.raises(ValueError, match="payoff='wins'"):
        result.game("wins")


def test_a_cycle_is_named_and_its_winner_mixes():
    """Win rates of 0.6, 0.7, 0.8 around the ring: each policy's share is what the other two play for."""
    odds = {key: math.log(p / (1 - p)) for key, p in ((("a", "b"), 0.6), (("b", "c"), 0.7), (("c", "a"), 0.8))}
    policies = [policy(name, *[name] * 5) for name in "abc"]
    result = measure_win_rates(policies, table(odds))
    assert result.winner() == pytest.approx([0.2 / 0.6, 0.3 / 0.6, 0.1 / 0.6], abs=1e-6)
    assert result.against_winner() == pytest.approx([0, 0, 0], abs=1e-6)
    (cycle,) = result.cycles
    assert cycle.policies == ["a", "b", "c"] and cycle.is_certain
    assert cycle.win_rates == pytest.approx([0.6, 0.7, 0.8], abs=1e-6)
    assert "a > b > c > a (win rates 60.0%, 70.0%, 80.0%; every interval above 1/2)" in cycle_lines(result)
    assert cycle_lines(result, at_most=0) == "And 1 more."


def test_a_cycle_of_one_lucky_prompt_is_not_certain():
    # a > b > c on nine prompts, and on them c ties with a but for one.
    def judge(prompt, first, second):
        if {first, second} == {"a", "c"}:
            sign = 1 if first == "c" else -1
            return sign * (2.0 if prompt == "1?" else 0.0)
        return 1.0 if first < second else -1.0

    result = measure_win_rates([policy(name, *[name] * 9) for name in "abc"], FunctionScorer(judge))
    assert [cycle.is_certain for cycle in result.cycles] == [False] and "may be chance" in cycle_lines(result)


def test_the_two_games_can_differ():
    """a wins one prompt of four beyond doubt and loses three narrowly."""
    odds = {"1?": 10.0, "2?": -1.0, "3?": -1.0, "4?": -1.0}
    scorer = FunctionScorer(lambda prompt, first, second: odds[prompt] * (1 if first == "a" else -1))
    result = measure_win_rates([policy("a", *"aaaa"), policy("b", *"bbbb")], scorer)
    narrow = 1 / (1 + math.e)
    expected = (1 / (1 + math.exp(-10)) + 3 * narrow) / 4
    assert result.matrix[0, 1] == pytest.approx(expected, abs=1e-6) and expected < 0.5
    assert result.winner().argmax() == 1 and result.winner("log_odds").argmax() == 0
    assert result.game("log_odds")[0, 1] == pytest.approx((10 - 3) / 4)


def test_lengths_in_tokens_and_of_conversations():
    turns = [{"role": "assistant", "content": "ab c"}, {"role": "user", "content": "And?"}]
    result = measure_win_rates(
        [policy("a", [*turns, {"role": "assistant", "content": "d"}]), policy("b", "x y z")],
        FunctionScorer(lambda *_: 0.0),
        count_tokens=lambda text: len(text.split()),
    )
    assert result.characters.tolist() == [[6, 5]] and result.tokens.tolist() == [[3, 3]]


def test_tables(ranked):
    result, _ = ranked
    lines = win_rate_table(result).splitlines()
    assert lines[0] == "| win rate of, against | a | b | c |"
    assert lines[2] == "| a |  | 62.5% | 57.5% |"
    lines = policy_table(result, "b").splitlines()
    assert lines[0] == (
        "| policy | characters | win rate against b | at its length | share in the von Neumann winner | "
        "win rate against it |"
    )
    # Answers as long as the baseline's need no correction.
    assert lines[2] == "| a | 3 | 62.5% | 62.5% | 100.0% | 50.0% |"
    assert lines[3] == "| b | 3 |  |  | 0.0% | 37.5% |"
    with pytest.raises(ValueError, match="'d' is none of the policies a, b, c"):
        policy_table(result, "d")


def test_tables_with_intervals():
    policies = [policy("a", "x1", *"2345"), policy("b", "y1", *"2345")]
    result = measure_win_rates(policies, table({("x1", "y1"): LN3}))
    assert win_rate_table(result).splitlines()[2] == "| a |  | 55.0% (50.0% to 65.0%) |"
    assert policy_table(result, "b").splitlines()[2].startswith("| a | 1 | 55.0% (50.0% to 65.0%) | ")


def test_json(ranked):
    result, _ = ranked
    found = json.loads(json.dumps(result.to_dict("b")))
    assert found["prompts"] == 2 and found["scorer"] == "fake" and found["baseline"] == "b"
    assert found["policies"]["a"]["win_rates"]["c"] == pytest.approx(0.575)
    assert found["policies"]["a"]["intervals"]["b"] is None, "two prompts"
    assert found["policies"]["a"]["length_controlled_win_rate"] == pytest.approx(0.625)
    assert "length_controlled_win_rate" not in found["policies"]["b"]
    assert found["games"]["probability"]["von_neumann_winner"]["a"] == pytest.approx(1)
    assert found["games"]["log_odds"]["payoffs"][0][1] == pytest.approx(LN3 / 2)


def test_an_answer_without_text_loses_and_is_counted():
    """On three prompts: a text beats an empty answer, empty ones tie, and the third is judged, ln 3 for a."""
    scorer = table({("a3", "b3"): LN3})
    policies = [policy("a", "a1", " ", "a3"), policy("b", "", "\n", "b3"), policy("c", "", "c2", "a3")]
    result = measure_win_rates(policies, scorer)
    assert result.empty_answers == {"a": 1, "b": 2, "c": 1}
    assert {text for asked in scorer.asked for group in asked for text in group} == {"a1", "c2", "a3", "b3"}
    expected = np.array([[0.5, (1 + 0.5 + 0.75) / 3, 0.5], [0.25, 0.5, 0.25], [0.5, 0.75, 0.5]])
    assert result.matrix == pytest.approx(expected, abs=1e-6)
    assert result.winner().sum() == pytest.approx(1)
    # In log-odds it loses by the largest judgement, ln 3.
    assert result.game("log_odds")[0] == pytest.approx([0, 2 * LN3 / 3, 0], abs=1e-6)
    json.dumps(result.to_dict("a"), allow_nan=False)
    assert "1 of a, 2 of b, 1 of c." in empty_line(result)
    assert empty_line(measure_win_rates([policy("a", "a3"), policy("b", "b3")], scorer)) == ""


def test_one_policy_is_not_enough():
    with pytest.raises(ValueError, match="1 given, two or more"):
        measure_win_rates([policy("a", "x")], table({}))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_length_control_recovers_the_regression():
    rng = np.random.default_rng(0)
    lengths, baseline = rng.integers(50, 900, 60), rng.integers(50, 900, 60)
    difference = lengths - baseline
    feature = np.tanh(difference / np.sqrt(((difference - difference.mean()) ** 2).sum() / 59))
    for theta, phi in ((0.4, 0.9), (-1.2, 3.0), (0.0, -2.0)):
        chances = sigmoid(theta + phi * feature)
        assert length_controlled_win_rate(chances, lengths, baseline) == pytest.approx(sigmoid(theta), abs=1e-6)


def test_length_control_of_what_says_nothing_about_length():
    assert length_controlled_win_rate([0.9, 0.7], [5, 8], [5, 8]) == pytest.approx(0.8)
    assert length_controlled_win_rate([1.0, 1.0], [5, 8], [4, 2]) == 1.0
    # Always two characters more: whether that is why it wins, nobody can tell.
    assert length_controlled_win_rate([0.9, 0.7], [5, 8], [3, 6]) is None
    # Won where longer, lost where shorter, without a doubt.
    assert length_controlled_win_rate([1.0, 0.0, 1.0, 0.0], [9, 1, 8, 2], [5, 5, 5, 5]) is None
