"""Policies against each other on the same prompts, judged by a scorer: win rates, and the game between policies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from gpm_hf.data.rings import ring_edges
from gpm_hf.evaluation.reports.policy_answers import PolicyAnswers, assistant_text, same_prompts
from gpm_hf.evaluation.reports.scored_groups import ResponseGroup, score_groups
from gpm_hf.evaluation.statistics.bootstrap import MIN_CLUSTERS, bootstrap_interval, interval_text
from gpm_hf.evaluation.statistics.length_control import length_controlled_win_rate
from gpm_hf.modeling import is_empty
from gpm_hf.preference import find_cycles, von_neumann_winner
from gpm_hf.preference.arrays import sigmoid
from gpm_hf.scoring.scorer import Scorer
from gpm_hf.tables import markdown_table

_RESAMPLES = 2000
# With fewer prompts the bootstrap's intervals are too narrow: it takes the sample's spread for the population's.
_MANY = 30


@dataclass
class PolicyCycle:
    """
    Policies each of which beats the next, and the last the first.

    Attributes:
        policies: their names.
        win_rates: of each against the next one, the last against the first.
        is_certain: whether the 95% interval of every one of these win rates lies above 1/2; with few prompts Student's
            interval as well, which is wider than the bootstrap's. False where there are no intervals.
    """

    policies: list[str]
    win_rates: list[float]
    is_certain: bool


@dataclass
class WinRates:
    """
    K policies on N prompts.

    Attributes:
        scorer: the judge's name.
        policies: K names.
        prompts: N prompts.
        responses: for each prompt the K answers, in the order of the policies; `None` where a policy gave none.
        log_odds: shape (N, K, K): that the answer of one policy is preferred to another's; 0 for equal answers.
            Minus infinity for an answer without text against a text.
        characters: shape (N, K), lengths of the answers.
        tokens: shape (N, K), `None` where no tokenizer was given.
        asymmetry, forward_passes, reused: see [`gpm_hf.evaluation.reports.scored_groups.ScoredGroups`].
    """

    scorer: str
    policies: list[str]
    prompts: list
    responses: list[list]
    log_odds: np.ndarray
    characters: np.ndarray
    tokens: np.ndarray | None
    asymmetry: float | None
    forward_passes: int
    reused: int

    @cached_property
    def empty_answers(self) -> dict[str, int]:
        """By policy, how many of its answers have no text."""
        return {
            name: sum(_has_no_text(answers[place]) for answers in self.responses)
            for place, name in enumerate(self.policies)
        }

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Shape (N, K, K): sigmoid of the log-odds."""
        return sigmoid(self.log_odds)

    @cached_property
    def matrix(self) -> np.ndarray:
        """Win rates, shape (K, K): the mean over prompts of P(answer of a is preferred to the answer of b)."""
        return 0.5 + self.game("probability")

    @cached_property
    def intervals(self) -> np.ndarray:
        """Shape (K, K, 2): 95% bootstrap intervals of the win rates, over prompts; NaN for fewer than five of them."""
        size = len(self.policies)
        found = np.full((size, size, 2), 0.5)
        ones = [1] * len(self.prompts)
        for a, b in combinations(range(size), 2):
            interval = bootstrap_interval(self.probabilities[:, a, b].tolist(), ones, samples=_RESAMPLES)
            low, high = (np.nan, np.nan) if interval is None else interval
            found[a, b], found[b, a] = (low, high), (1 - high, 1 - low)
        return found

    def interval(self, policy: str, opponent: str) -> tuple[float, float] | None:
        """The 95% interval of one win rate; `None` for fewer than five prompts."""
        low, high = self.intervals[self.policies.index(policy), self.policies.index(opponent)].tolist()
        return None if np.isnan(low) else (low, high)

    def game(self, payoff: str = "probability") -> np.ndarray:
        """
        The game that the policies play, a skew-symmetric matrix of shape (K, K), as a mean over prompts of

        - `"probability"`: P - 1/2. A mixture of policies draws one of them for each prompt. Its win rate is the
          mixture of theirs, because the mean of P is linear in it; so a von Neumann winner of this game, played as a
          mixture, has a win rate of at least 1/2 against every policy.
        - `"log_odds"`: the score, which General Preference Optimization plays for (section 5 of the paper). Prompts on
          which the judge is sure weigh more, so a policy may win this game and have a win rate below 1/2.

        Raises:
            ValueError: another payoff.
        """
        if payoff not in ("probability", "log_odds"):
            raise ValueError(f'payoff={payoff!r}: choose "probability" or "log_odds".')
        if payoff == "probability":
            values = self.probabilities
        else:
            # An answer without text loses by as much as any judgement was sure of, and a game needs numbers.
            most = np.abs(self.log_odds[np.isfinite(self.log_odds)]).max()
            values = np.clip(self.log_odds, -max(1.0, most), max(1.0, most))
        mean = values.mean(0)
        return (mean - mean.T) / 2

    def winner(self, payoff: str = "probability") -> np.ndarray:
        """
        The von Neumann winner of [`~WinRates.game`]: probabilities of shape (K,), nearest to uniform where there are
        several.

        Raises:
            ImportError: SciPy is not installed.
        """
        return von_neumann_winner(self.game(payoff))

    def against_winner(self, payoff: str = "probability") -> np.ndarray:
        """
        What each policy gets against the von Neumann winner, shape (K,): at most 0, and 0 for those that it mixes.
        With `"probability"`, 1/2 less than the win rate against the mixture.
        """
        return self.game(payoff) @ self.winner(payoff)

    @cached_property
    def cycles(self) -> list[PolicyCycle]:
        """Cycles of three among the policies by win rate; where there is no tie, there is one if there is any."""
        return [self._cycle([self.policies[member] for member in found.members]) for found in find_cycles(self.game())]

    def _cycle(self, names: list[str]) -> PolicyCycle:
        edges = ring_edges(names)
        rates = [float(self.matrix[self.policies.index(a), self.policies.index(b)]) for a, b in edges]
        return PolicyCycle(names, rates, all(self._is_above_half(a, b) for a, b in edges))

    def _is_above_half(self, policy: str, opponent: str) -> bool:
        interval = self.interval(policy, opponent)
        if interval is None or interval[0] <= 0.5:
            return False
        if len(self.prompts) >= _MANY:
            return True
        a, b = self.policies.index(policy), self.policies.index(opponent)
        return _student_low(self.probabilities[:, a, b]) > 0.5

    def length_controlled(self, policy: str, baseline: str) -> float | None:
        """The win rate if the answers were as long as the baseline's, see [`length_controlled_win_rate`]."""
        a, b = self.policies.index(policy), self.policies.index(baseline)
        return length_controlled_win_rate(self.probabilities[:, a, b], self.characters[:, a], self.characters[:, b])

    def to_dict(self, baseline: str | None = None) -> dict[str, Any]:
        """For JSON; `baseline` as in [`policy_table`]."""
        policies = {}
        for place, name in enumerate(self.policies):
            policies[name] = {
                "mean_characters": float(self.characters[:, place].mean()),
                "empty_answers": self.empty_answers[name],
                "mean_tokens": None if self.tokens is None else float(self.tokens[:, place].mean()),
                "win_rates": {other: float(self.matrix[place, at]) for at, other in enumerate(self.policies)},
                "intervals": {other: self.interval(name, other) for other in self.policies if other != name},
            }
            if baseline is not None and name != baseline:
                policies[name]["length_controlled_win_rate"] = self.length_controlled(name, baseline)
        games = {
            payoff: {
                "payoffs": self.game(payoff).tolist(),
                "von_neumann_winner": dict(zip(self.policies, self.winner(payoff).tolist())),
                "payoff_against_winner": dict(zip(self.policies, self.against_winner(payoff).tolist())),
            }
            for payoff in ("probability", "log_odds")
        }
        return {
            "scorer": self.scorer,
            "prompts": len(self.prompts),
            "baseline": baseline,
            "policies": policies,
            "games": games,
            "cycles": [vars(cycle) for cycle in self.cycles],
            "asymmetry": self.asymmetry,
            "forward_passes": self.forward_passes,
        }

    def card_numbers(self, policy: str, baseline: str) -> dict[str, Any]:
        """What the card of one policy states."""
        a, b = self.policies.index(policy), self.policies.index(baseline)
        found: dict[str, Any] = {
            "win_rate": float(self.matrix[a, b]),
            "win_rate_interval": self.interval(policy, baseline),
            "length_controlled_win_rate": self.length_controlled(policy, baseline),
            "mean_characters": float(self.characters[:, a].mean()),
            "mean_characters_of_the_baseline": float(self.characters[:, b].mean()),
            "prompts": len(self.prompts),
        }
        return {name: value for name, value in found.items() if value is not None}


def _student_low(values: np.ndarray) -> float:
    """Lower end of the 95% interval of the mean by Student's t."""
    from scipy.special import stdtrit

    error = values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - stdtrit(len(values) - 1, 0.975) * error)


def measure_win_rates(
    policies: Sequence[PolicyAnswers],
    scorer: Scorer,
    chunk_size: int = 64,
    store: str | Path | None = None,
    progress: bool = False,
    count_tokens: Callable[[str], int] | None = None,
) -> WinRates:
    """
    Lets a scorer judge the answers of policies to the same prompts. Equal answers are scored as one and tie. No scorer
    reads an answer without text (or `None`): it loses to every text, and ties with others like it.

    Args:
        policies: two or more, see [`gpm_hf.evaluation.reports.policy_answers.read_answers`].
        scorer, chunk_size, store, progress: see [`gpm_hf.evaluation.reports.scored_groups.score_groups`].
        count_tokens: how many tokens a text has; without it lengths are in characters alone.

    Raises:
        ValueError: fewer than two policies, two of one name, policies that did not answer the same prompts, no answer
            with text, or one that the scorer refuses; the message names the row.
    """
    if len(policies) < 2:
        raise ValueError(f"Win rates are between policies: {len(policies)} given, two or more are needed.")
    policies = same_prompts(policies)
    answers = [list(answer) for answer in zip(*[policy.responses for policy in policies])]
    groups, places = [], []
    for number, (prompt, own) in enumerate(zip(policies[0].prompts, answers)):
        distinct: list = []
        for answer in own:
            if answer not in distinct and not _has_no_text(answer):
                distinct.append(answer)
        places.append([distinct.index(answer) if answer in distinct else None for answer in own])
        groups.append(ResponseGroup(policies[0].rows[number], prompt, distinct))
    scored = score_groups([group for group in groups if group.responses], scorer, chunk_size, store, progress)
    found = iter(scored.scores)
    matrices = [next(found) if group.responses else np.zeros((0, 0)) for group in groups]
    texts = [["" if answer is None else assistant_text(answer) for answer in own] for own in answers]
    return WinRates(
        scorer=scorer.name,
        policies=[policy.name for policy in policies],
        prompts=policies[0].prompts,
        responses=answers,
        log_odds=np.stack([_by_policy(scores, place) for scores, place in zip(matrices, places)]),
        characters=np.array([[len(text) for text in own] for own in texts]),
        tokens=np.array([[count_tokens(text) for text in own] for own in texts]) if count_tokens else None,
        asymmetry=scored.asymmetry,
        forward_passes=scored.forward_passes,
        reused=scored.reused,
    )


def _has_no_text(answer: Any) -> bool:
    return answer is None or is_empty(answer)


def _by_policy(scores: np.ndarray, places: Sequence[int | None]) -> np.ndarray:
    """Log-odds between policies, (K, K), from those between texts; a policy without a text has no place."""
    own = {number: place for number, place in enumerate(places) if place is not None}
    told, silent = list(own), [number for number in range(len(places)) if number not in own]
    matrix = np.zeros((len(places), len(places)))
    matrix[np.ix_(told, silent)], matrix[np.ix_(silent, told)] = np.inf, -np.inf
    matrix[np.ix_(told, told)] = scores[np.ix_(list(own.values()), list(own.values()))]
    return matrix


def win_rate_table(result: WinRates) -> str:
    """Markdown: the win rate of the row's policy against the column's, with its 95% interval over prompts."""
    rows = []
    for place, name in enumerate(result.policies):
        cells = [
            "" if name == other else f"{result.matrix[place, at]:.1%}{_between(result.interval(name, other))}"
            for at, other in enumerate(result.policies)
        ]
        rows.append([name, *cells])
    return markdown_table(["win rate of, against", *result.policies], rows)


def policy_table(result: WinRates, baseline: str | None = None) -> str:
    """
    Markdown, a row per policy: mean length of its answers, win rate against the baseline as it is and at the
    baseline's length, its share in the von Neumann winner, and its win rate against that mixture.

    Args:
        result: see [`measure_win_rates`].
        baseline: one of the policies; without it there are no columns for it.

    Raises:
        ValueError: the baseline is none of the policies.
    """
    if baseline is not None and baseline not in result.policies:
        raise ValueError(f"The baseline {baseline!r} is none of the policies {', '.join(result.policies)}.")
    header = ["policy", "characters"] + (["tokens"] if result.tokens is not None else [])
    if baseline is not None:
        header += [f"win rate against {baseline}", "at its length"]
    header += ["share in the von Neumann winner", "win rate against it"]
    winner, against = result.winner(), 0.5 + result.against_winner()
    rows = []
    for place, name in enumerate(result.policies):
        row = [name, f"{result.characters[:, place].mean():.0f}"]
        if result.tokens is not None:
            row.append(f"{result.tokens[:, place].mean():.0f}")
        if baseline == name:
            row += ["", ""]
        elif baseline is not None:
            rate = result.matrix[place, result.policies.index(baseline)]
            controlled = result.length_controlled(name, baseline)
            row.append(f"{rate:.1%}{_between(result.interval(name, baseline))}")
            row.append("undetermined" if controlled is None else f"{controlled:.1%}")
        rows.append([*row, f"{winner[place]:.1%}", f"{against[place]:.1%}"])
    return markdown_table(header, rows)


def _between(interval: tuple[float, float] | None) -> str:
    return interval_text(interval, " ({:.1%} to {:.1%})")


def empty_line(result: WinRates) -> str:
    """A sentence about answers without text, or nothing where there are none."""
    told = [f"{count} of {name}" for name, count in result.empty_answers.items() if count]
    return f"Answers without text, which lose to every text and tie among themselves: {', '.join(told)}." * bool(told)


def cycle_lines(result: WinRates, at_most: int = 10) -> str:
    """The cycles among the policies in words, those that are certain first."""
    if not result.cycles:
        return "No cycle of three among the policies."
    lines = []
    for cycle in sorted(result.cycles, key=lambda cycle: not cycle.is_certain)[:at_most]:
        ring = " > ".join([*cycle.policies, cycle.policies[0]])
        rates = ", ".join(f"{rate:.1%}" for rate in cycle.win_rates)
        if len(result.prompts) < MIN_CLUSTERS:
            certain = f"no intervals under {MIN_CLUSTERS} prompts: may be chance"
        else:
            certain = "every interval above 1/2" if cycle.is_certain else "not every interval above 1/2: may be chance"
        lines.append(f"Cycle: {ring} (win rates {rates}; {certain}).")
    if len(result.cycles) > at_most:
        lines.append(f"And {len(result.cycles) - at_most} more.")
    return "\n".join(lines)
