"""
What every kind of preference model is to an evaluation: a *scorer*, which turns prompts with K responses each into
K x K log-odds, and says what that cost and how far it contradicted itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch

from gpm_hf.modeling import PromptError, at_prompt, read_group


@dataclass(frozen=True)
class ScoredMatrix:
    """
    A matrix with what belongs to it.

    Attributes:
        scores (`torch.FloatTensor` of shape `(K, K)`): log-odds, as in [`Scorer`].
        forward_passes (`int`): sequences passed through a backbone for it.
        asymmetry (`float` or `None`): its largest |P(i > j) + P(j > i) - 1|, before any averaging; `None` where one
            order only was read.
        disagreement (`torch.FloatTensor` of shape `(K, K)` or `None`): half the sum of both orders, log-odds, before
            any averaging: by how much i is preferred to j where i is read first, more than where j is; 0 for a model
            that cannot contradict itself, `None` where it is not known.
    """

    scores: torch.Tensor
    forward_passes: int = 0
    asymmetry: float | None = 0.0
    disagreement: torch.Tensor | None = None


@runtime_checkable
class Scorer(Protocol):
    """
    The protocol. [`ScorerBase`] is one way to fulfil it, and tells costs and asymmetry matrix by matrix; any object
    with these four will do.

    Attributes:
        name (`str`): how a table calls it.
        forward_passes (`int`): sequences passed through a backbone so far, by all calls. K responses cost K for a
            model that reads them one by one, K(K-1) for one that reads two at once in both orders. A prompt that a
            gate reads in a sequence of its own is one more.
        asymmetry (`float` or `None`): the largest |P(i > j) + P(j > i) - 1| so far, before any averaging: 0 for a
            model that cannot contradict itself, up to 1 for one that always prefers what it reads first. `None` where
            one order only was read, so that nobody knows.
    """

    name: str
    forward_passes: int
    asymmetry: float | None

    def __call__(self, prompts: list, groups: list[list]) -> list[torch.Tensor]:
        """
        Args:
            prompts (`list[str]` or `list[list[dict]]`): N prompts, each a string or chat messages.
            groups (`list[list]`): for each prompt its K responses, strings or lists of chat messages; K may differ.

        Returns:
            `list[torch.FloatTensor]`: N matrices of shape (K, K), float32 on the CPU: S[i, j] is the log-odds that
            response i is preferred to response j.
        """
        ...


class ScorerBase(ABC):
    """
    What the scorers here share: the input is checked, a matrix must be finite, the asymmetry is measured.

    Args:
        name (`str`): how a table calls it.
        measures_asymmetry (`bool`, defaults to `True`): `False` where one order only is read.
        template_date (`str`, *optional*): the date that the chat template writes, on which scores then depend.
        needs_prompt (`bool`, defaults to `True`): `False` for a model that reads each response as a whole, so that
            the responses may contain the prompt and `None` stand for it.

    Attributes:
        model: the model, of scorers that have one.
        must_differ: whether different responses that become the same tokens are refused. Where a policy samples, two
            may differ in nothing that is read (their reasoning), which is no fault: they are equals, with score 0.
    """

    model: Any = None
    must_differ = True

    def __init__(
        self,
        name: str,
        measures_asymmetry: bool = True,
        template_date: str | None = None,
        needs_prompt: bool = True,
    ):
        self.name = name
        self.needs_prompt = needs_prompt
        self.template_date = template_date
        self.forward_passes = 0
        self.asymmetry: float | None = 0.0 if measures_asymmetry else None

    def __call__(self, prompts: list, groups: list[list]) -> list[torch.Tensor]:
        """As in [`Scorer`]; raises as [`~ScorerBase.score`] does."""
        return [found.scores for found in self.score(prompts, groups)]

    def score(self, prompts: list, groups: list[list]) -> list[ScoredMatrix]:
        """
        Scores groups, each with its own costs and asymmetry.

        Args:
            prompts, groups: as in [`Scorer`].

        Raises:
            PromptError: an empty group or response, a sequence that is too long, scores that are not finite. It has
                the prompt's number, the first being 0. Nothing is truncated.
            ValueError: for what is about no single prompt.
        """
        prompts, groups = read_groups(prompts, groups, self.needs_prompt)
        if not prompts:
            return []
        results = []
        for number, found in enumerate(self._score(prompts, groups)):
            matrix, passes = found if isinstance(found, tuple) else (found, 0)
            matrix = matrix.detach().float().cpu()
            if not bool(matrix.isfinite().all()):
                raise self._not_finite(number)
            if self.asymmetry is None:
                results.append(ScoredMatrix(self._finish(matrix), passes, None))
                continue
            disagreement = (matrix + matrix.T) / 2
            results.append(ScoredMatrix(self._finish(matrix), passes, largest_asymmetry(matrix), disagreement))
        self.forward_passes += sum(found.forward_passes for found in results)
        if self.asymmetry is not None:
            self.asymmetry = max([self.asymmetry, *(found.asymmetry or 0.0 for found in results)])
        return results

    def check(self, prompts: list, source: str) -> None:
        """
        Makes sure, before hours go into responses, that every prompt can be read with some response.

        Args:
            prompts: strings or chat messages.
            source: where they are from, for messages.

        Raises:
            ValueError: a prompt that the model's template cannot render, or that leaves no room in its context; the
                message names the row, counted from 1.
        """
        for number, prompt in enumerate(prompts, start=1):
            try:
                self._encode_groups(*read_groups([prompt], [["A", "B"]]))
            except PromptError as error:
                raise ValueError(
                    f"{source}, row {number}: {self.name} cannot read this prompt: {error.reason}"
                ) from error

    def _not_finite(self, number: int) -> PromptError:
        return PromptError(
            number,
            f"the scores by {self.name} are not finite. The model's weights contain NaN or infinity, or its states "
            "overflow in its type: check the checkpoint, or load it in float32.",
        )

    def _encode_groups(self, prompts: list, groups: list[list]) -> Any:
        """What the model reads of groups, `None` where it encodes nothing; raises as scoring does."""
        return None

    @abstractmethod
    def _score(self, prompts: list, groups: list[list]) -> Sequence[torch.Tensor | tuple[torch.Tensor, int]]:
        """
        Matrices as the model gives them, of both orders where it reads both; each in a tuple with the number of
        forward passes that it took, or alone where that is none.
        """

    def _finish(self, matrix: torch.Tensor) -> torch.Tensor:
        """What becomes of a matrix after its asymmetry was measured."""
        return matrix


def score_with(scorer: Scorer, prompts: list, groups: list[list]) -> list[ScoredMatrix]:
    """
    What any scorer gives, matrix by matrix. One that is no [`ScorerBase`] only keeps accounts of all its calls: the
    passes of this call are shared out evenly, the asymmetry is the one that it states, and a disagreement is known
    where its matrices show one, or it states that there is none.

    Raises:
        ValueError: as the scorer does; another number of matrices than of prompts.
    """
    if isinstance(scorer, ScorerBase):
        return scorer.score(prompts, groups)
    before = scorer.forward_passes
    matrices = scorer(prompts, groups)
    if len(matrices) != len(prompts):
        raise ValueError(f"{scorer.name} returned {len(matrices)} matrices for {len(prompts)} prompts.")
    passes = scorer.forward_passes - before
    shares = [passes * (n + 1) // len(prompts) - passes * n // len(prompts) for n in range(len(prompts))]
    found = []
    for matrix, share in zip(matrices, shares):
        shown = (matrix + matrix.T) / 2
        is_known = scorer.asymmetry == 0 or bool(shown.any())
        found.append(ScoredMatrix(matrix, share, scorer.asymmetry, shown if is_known else None))
    return found


def largest_asymmetry(matrix: torch.Tensor) -> float:
    """
    Largest |P(i > j) + P(j > i) - 1| of a matrix.

    Args:
        matrix (`torch.Tensor` of shape `(K, K)`): log-odds.

    Returns:
        `float`: between 0 and 1; exactly 0 for a matrix that is skew-symmetric in floating point.
    """
    matrix = matrix.double()
    # 1 - P(j > i) is sigmoid(-S[j, i]): this way a skew-symmetric matrix gives zero without a rounding error.
    return float((matrix.sigmoid() - (-matrix.T).sigmoid()).abs().max())


def read_groups(prompts: list, groups: list[list], needs_prompt: bool = True) -> tuple[list, list[list]]:
    """
    Prompts and groups in one shape, see [`~gpm_hf.modeling.read_group`]; whatever scores them then reads the same.
    Where a prompt is not needed, it may be `None`.

    Raises:
        ValueError: where they are not as in [`Scorer`]; about one prompt, a [`~gpm_hf.modeling.PromptError`].
    """
    if isinstance(prompts, str) or isinstance(groups, str) or len(prompts) != len(groups):
        raise ValueError(
            "A scorer takes a list of prompts and as many lists of responses; got "
            f"{type(prompts).__name__} and {type(groups).__name__}, of lengths {len(prompts)} and {len(groups)}."
        )
    read = []
    for number, (prompt, responses) in enumerate(zip(prompts, groups)):
        with at_prompt(number):
            group = read_group(prompt, responses)
            if group.prompt is None and needs_prompt:
                raise ValueError(f"it is None, and {group.why_no_prompt}; give a string or chat messages.")
        read.append((group.prompt, group.responses))
    return [prompt for prompt, _ in read], [responses for _, responses in read]


def reward_differences(rewards: torch.Tensor) -> torch.Tensor:
    """The matrix r_i - r_j of rewards of shape (K,): exactly skew-symmetric."""
    return rewards[:, None] - rewards[None, :]
