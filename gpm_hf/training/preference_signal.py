"""
A scorer beside a policy in training: the responses to one prompt, a *group*, may lie on several processes.

Of a scorer that reads one response at a time each process reads those that it holds; their rows of numbers, a few
floats each, are gathered; then every process forms the same matrices. Groups of any other scorer are dealt out: each
is scored by one process, and the matrices are gathered. Text, never the policy's token ids, goes to the scorer,
through its own tokenizer and chat template.

A completion without text is *unscorable*: there is nothing to prefer, and a preference model has never seen one. Its
row and column of the matrix are NaN, and the rest of its group is scored without it.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather, gather_object
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models import prepare_deepspeed, prepare_fsdp
from typing_extensions import override

from gpm_hf.modeling import EmptyResponseError, GPMConfig, PromptError, at_prompt, is_empty
from gpm_hf.scoring import (
    CallableScorer,
    GPMScorer,
    ResponseScorer,
    RewardModelScorer,
    Scorer,
    ScorerBase,
    load_scorer,
    whole_models,
)
from gpm_hf.scoring.load_scorer import read_description

Result = TypeVar("Result")


def group_by_prompt(prompts: Sequence, group_size: int | None = None) -> list[list[int]]:
    """
    Groups rows that answer the same prompt, wherever they stand: TRL's trainers lay groups out in different ways.

    Args:
        prompts: one prompt per row, strings or chat messages.
        group_size: cuts the rows of one prompt into groups of this size, in their order; a prompt that is in the data
            set twice then makes two groups.

    Returns:
        Row numbers of each group, in the order of their first rows.

    Raises:
        ValueError: where a prompt's rows do not fill their groups.
    """
    rows_of: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        key = prompt if isinstance(prompt, str) else json.dumps(prompt, sort_keys=True, default=repr)
        rows_of.setdefault(key, []).append(row)
    if group_size is None:
        return list(rows_of.values())
    groups = []
    for rows in rows_of.values():
        if len(rows) % group_size:
            raise ValueError(
                f"Incomplete group: {len(rows)} completions for the prompt {_shorten(prompts[rows[0]])}, but groups "
                f"have {group_size}. Every process must hold as many rows, and a rollout must not change its prompt."
            )
        groups += [rows[start : start + group_size] for start in range(0, len(rows), group_size)]
    return sorted(groups)


class PreferenceSignal(ABC):
    """
    A scorer as the trainers call it. [`~PreferenceSignal.prepare`] comes before the first use.

    Args:
        scorer ([`~gpm_hf.scoring.Scorer`]): its model is used in evaluation mode, its parameters frozen.
    """

    def __init__(self, scorer: Scorer):
        self.scorer = scorer
        self.device: Any = None
        if isinstance(scorer, ScorerBase):
            scorer.must_differ = False
        if isinstance(scorer, ScorerBase) and scorer.model is not None:
            scorer.model.eval().requires_grad_(False)

    def prepare(self, accelerator: Any) -> None:
        """Places the scorer's model for inference beside a policy in training."""
        self.device = accelerator.device
        model = self.scorer.model if isinstance(self.scorer, ScorerBase) else None
        # A model placed by its loader (quantised, or with a device map) is where it has to be.
        if model is not None and model.device.type != accelerator.device.type:
            model.to(accelerator.device)

    @abstractmethod
    def __call__(self, prompts: list, completions: list, groups: list[list[int]]) -> list[torch.Tensor]:
        """
        Scores groups of completions. All processes call this together.

        Args:
            prompts: the prompts of the n completions of this process, strings or chat messages.
            completions: the completions, strings or chat messages; every process has as many.
            groups: row numbers, counted through all processes, of the members of each group.

        Returns:
            For each group a matrix of log-odds of shape (K, K), the same on every process, skew-symmetric, with NaN in
            the rows and columns of unscorable completions.

        Raises:
            ValueError: what the scorer cannot score, on every process; the sentence names the prompt.
        """

    def _on_all(self, work: Callable[[], Result], prompts: Sequence) -> Result:
        """
        What `work()` returns here. What it refuses on any process, a [`~gpm_hf.modeling.PromptError`] about one of
        `prompts`, is refused on all: they would wait for that one.
        """
        refusal = None
        try:
            result = work()
        except PromptError as error:
            refusal = error
        told = refusal and (
            f"{self.scorer.name} cannot score the completions of the prompt {_shorten(prompts[refusal.number])}: "
            f"{refusal.reason}"
        )
        for sentence in gather_object([told]):
            if sentence is not None:
                raise ValueError(sentence) from refusal
        return result


class ResponseSignal(PreferenceSignal):
    """
    Of a scorer that reads one response at a time: a general preference model, a reward model. ZeRO-3 and FSDP shard
    it; in any other set-up every process holds the whole model, which needs no wrapper, as nothing of it is trained.
    """

    scorer: ResponseScorer

    @override
    def prepare(self, accelerator: Any) -> None:
        super().prepare(accelerator)
        if accelerator.distributed_type == DistributedType.DEEPSPEED and is_deepspeed_zero3_enabled():
            self.scorer.shard(lambda module: prepare_deepspeed(module, accelerator))
        elif accelerator.distributed_type == DistributedType.FSDP:
            self.scorer.shard(lambda module: cast(nn.Module, prepare_fsdp(module, accelerator)))

    @override
    def __call__(self, prompts: list, completions: list, groups: list[list[int]]) -> list[torch.Tensor]:
        rows = gather(self.rows(prompts, completions))
        every_prompt = gather_object(list(prompts))
        return self._on_all(
            lambda: [self._matrix(number, rows[group]) for number, group in enumerate(groups)],
            [every_prompt[group[0]] for group in groups],
        )

    def _matrix(self, number: int, rows: torch.Tensor) -> torch.Tensor:
        scorable = ~rows.isnan().any(-1)
        scores = torch.full((len(rows), len(rows)), torch.nan, device=rows.device)
        if bool(scorable.any()):
            with at_prompt(number):
                scores[scorable[:, None] & scorable] = self.scorer.matrix(rows[scorable]).flatten()
        return scores

    def rows(self, prompts: list, completions: list) -> torch.Tensor:
        """
        The scorer's rows of the n completions of this process, see [`~gpm_hf.scoring.ResponseScorer.rows`]. All
        processes call this together.

        Returns:
            Shape (n, width), of a completion without text NaN.
        """
        members, encoded = self._on_all(lambda: self._encode(prompts, completions), prompts)
        # Sharded weights are collected by all processes at every forward, so all must run as many.
        forwards = torch.tensor([self.scorer.count_forwards(encoded)], device=self.device)
        least = int(gather(forwards).max())
        found = self._on_all(lambda: self.scorer.rows(encoded, least), [prompts[group[0]] for group in members])
        rows = torch.full((len(prompts), self.scorer.width), torch.nan, device=self.device)
        rows[[row for group in members for row in group]] = found.to(rows)
        return rows

    def _encode(self, prompts: list, completions: list) -> tuple[list[list[int]], list]:
        """The scorable rows, in groups, and what the model reads of each group."""
        members, encoded = [], []
        together = self.scorer.reads_prompts_once
        for group in group_by_prompt(prompts) if together else [[row] for row in range(len(prompts))]:
            with at_prompt(group[0]):
                scorable = [row for row in group if not is_empty(completions[row])]
            while scorable:
                try:
                    with at_prompt(group[0]):
                        encoded.append(self.scorer.encode(prompts[group[0]], [completions[row] for row in scorable]))
                    members.append(scorable)
                    break
                except PromptError as error:
                    # A policy may sample what is empty once it is rendered.
                    if not isinstance(error.__cause__, EmptyResponseError):
                        raise
                    del scorable[error.__cause__.index]
        return members, encoded


class RewardSignal(ResponseSignal):
    """A reward model's: its rewards, and their differences as log-odds."""

    scorer: RewardModelScorer

    def __init__(self, scorer: RewardModelScorer):
        super().__init__(scorer)
        config = scorer.model.config
        self.name = (config.name_or_path or type(scorer.model).__name__).rstrip("/").split("/")[-1]

    def reward_function(self) -> Callable[..., list[float | None]]:
        """The model as one of TRL's reward functions, in whose logs its name stands; `None` without text."""

        def rewards(prompts: list, completions: list, **columns: Any) -> list[float | None]:
            values = self.rows(prompts, completions)[:, 0].tolist()
            return [None if value != value else value for value in values]

        rewards.__name__ = self.name
        return rewards


class GroupSignal(PreferenceSignal):
    """
    Of a scorer that reads several responses at once, and of a function of your own: a model in another library, a
    judge behind an API, a table. A model is whole on every process, which scores its share of the groups.

    A function gets the completions as they are, those without text too, and is not called by a process without a
    group; it may return `None` for a group that it cannot score.
    """

    def __init__(self, scorer: Scorer):
        super().__init__(scorer)
        self.function = scorer.function if isinstance(scorer, CallableScorer) else scorer
        self.reads_empty = isinstance(scorer, CallableScorer) or not isinstance(scorer, ScorerBase)

    @override
    def __call__(self, prompts: list, completions: list, groups: list[list[int]]) -> list[torch.Tensor]:
        prompts, completions = gather_object(list(prompts)), gather_object(list(completions))
        kept = [
            [place for place, row in enumerate(group) if self.reads_empty or not is_empty(completions[row])]
            for group in groups
        ]
        asked = [number for number, places in enumerate(kept) if places]
        state = PartialState()
        mine = asked[state.process_index :: state.num_processes]
        questions = [prompts[groups[number][0]] for number in mine]
        answers = [[completions[groups[number][place]] for place in kept[number]] for number in mine]
        matrices = self._on_all(lambda: self._score(questions, answers), questions)
        # Gathered process by process, while the shares were dealt out in turn.
        dealt = [number for process in range(state.num_processes) for number in asked[process :: state.num_processes]]
        results = [_unscorable(len(group)).to(self.device) for group in groups]
        for number, scores in zip(dealt, gather_object(matrices), strict=True):
            places = torch.tensor(kept[number], device=self.device)
            results[number][places[:, None], places] = scores.to(self.device)
        return results

    def _score(self, prompts: list, groups: list[list]) -> list[torch.Tensor]:
        """Matrices on the CPU, where objects are gathered."""
        found = self.function(prompts, groups) if prompts else []
        if len(found) != len(prompts):
            raise ValueError(f"{self.scorer.name} returned {len(found)} matrices for {len(prompts)} groups.")
        matrices = []
        for number, (scores, group) in enumerate(zip(found, groups)):
            with at_prompt(number):
                matrices.append(_checked(scores, len(group)))
        return matrices


def load_preference_signal(
    preference_model: Any, processing_class: Any = None, batch_size: int = 16, init_kwargs: dict | None = None
) -> PreferenceSignal:
    """
    The signal of whatever says who prefers what.

    Args:
        preference_model: a description as [`~gpm_hf.scoring.load_scorer`] reads it (`"gpm:NAME"`, `"judge:NAME"`, a
            path or Hub id alone, ...; adapters are merged); a [`~gpm_hf.modeling.GPMForPreference`], or a
            sequence-classification reward model with one label; a [`~gpm_hf.scoring.Scorer`]; or a function
            `f(prompts, groups)`, which gets G prompts and for each the list of its K completions (strings, or lists of
            messages), and returns for each a K x K skew-symmetric matrix of log-odds, or `None` where it cannot score
            the group.
        processing_class (`PreTrainedTokenizerBase`, *optional*): the tokenizer of a model; by default the one saved
            beside it.
        batch_size: sequences that a model encodes at once.
        init_kwargs: further options of a description: for `from_pretrained` (`dtype`, `revision`, ...), and what the
            scorer's own arguments are (`temperature`, `both_orders`, `template`, ...).

    Raises:
        ValueError: where there is no preference model, its heads are missing, or its tokenizer is not known.
        TypeError: something else.
    """
    if isinstance(preference_model, str):
        scorer: Scorer = _load_described(preference_model, processing_class, batch_size, init_kwargs or {})
    elif init_kwargs:
        raise ValueError(
            "`preference_model_init_kwargs` are for a preference model given by its path; this one is loaded."
        )
    elif isinstance(preference_model, nn.Module):
        scorer = _scorer_of(preference_model, processing_class, batch_size)
    elif isinstance(preference_model, Scorer):
        scorer = preference_model
    elif callable(preference_model):
        scorer = CallableScorer(preference_model)
    else:
        raise TypeError(
            "A preference model is a path, a scorer's description, a model, a scorer or a function, not a "
            f"{type(preference_model).__name__}."
        )
    if isinstance(scorer, RewardModelScorer):
        return RewardSignal(scorer)
    return ResponseSignal(scorer) if isinstance(scorer, ResponseScorer) else GroupSignal(scorer)


def _load_described(description: str, tokenizer: Any, batch_size: int, options: dict) -> Scorer:
    kind, name = read_description(description, options)
    if name is None:
        return load_scorer(description, **options)
    # A reward model need not say that it has one label.
    of_kind: dict[str, dict] = {"gpm": {"merge": True}, "reward": {"num_labels": 1}}
    options = {"tokenizer": tokenizer, "batch_size": batch_size, **of_kind.get(kind, {}), **options}
    if "device_map" not in options:
        # It is moved when the processes are known.
        options.setdefault("device", "cpu")
    # ZeRO-3 would split the heads while loading.
    with whole_models():
        return load_scorer(f"{kind}:{name}", **options)


def _scorer_of(model: nn.Module, tokenizer: Any, batch_size: int) -> Scorer:
    config: Any = model.config
    if config.model_type == GPMConfig.model_type:
        return GPMScorer(model, tokenizer, batch_size=batch_size)
    if config.num_labels != 1:
        raise ValueError(
            f"{type(model).__name__} is no preference model: neither a GPMForPreference nor a sequence-classification "
            f"reward model with one label (this one says num_labels={config.num_labels}). A model that reads two "
            "responses at once is given as a PairClassifierScorer or PairCompletionScorer."
        )
    return RewardModelScorer(model, tokenizer, batch_size=batch_size)


def _checked(scores: Any, size: int) -> torch.Tensor:
    """A matrix from outside, of shape (size, size), float32 on the CPU; NaN where there is none."""
    if scores is None:
        return _unscorable(size)
    scores = torch.as_tensor(scores, dtype=torch.float32).detach().cpu()
    if scores.shape != (size, size):
        raise ValueError(f"its matrix is of shape {tuple(scores.shape)} for {size} completions.")
    if not bool(scores.isfinite().all()):
        raise ValueError("its matrix holds NaN or infinity; a function returns None for a group that it cannot score.")
    if not torch.allclose(scores, -scores.T, rtol=1e-4, atol=1e-4):
        raise ValueError(
            "its matrix is not skew-symmetric. It must hold log-odds, S[i, j] = -S[j, i]; a matrix of probabilities P "
            "becomes one by `log(P / (1 - P))`, and a scorer that reads both orders averages them."
        )
    return scores


def _unscorable(size: int) -> torch.Tensor:
    return torch.full((size, size), torch.nan, dtype=torch.float32)


def _shorten(prompt: Any, length: int = 200) -> str:
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=repr)
    return repr(text if len(text) <= length else text[:length] + "...")
