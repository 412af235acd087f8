"""
From a preference model to log-odds matrices while a policy trains: the responses to one prompt, a *group*, may lie on
several processes.

Each process embeds the responses it holds; the embeddings, a few floats each, are gathered; then every process forms
the same matrices. Text, never the policy's token ids, goes to the preference model, through its own tokenizer and chat
template: a conversation as its messages, a plain prompt as [`~gpm_hf.modeling.encode_group`] reads it (one user
message where there is a chat template, plain text where there is none).

A completion without text is *unscorable*: there is nothing to prefer, and a preference model has never seen one. Its
row and column of the matrix are NaN, and the rest of its group is scored without it.
"""

import json

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather, gather_object, is_peft_model
from torch import nn
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from trl.models import prepare_deepspeed, prepare_fsdp

from gpm_hf.modeling import (
    EmptyResponseError,
    EncodedGroup,
    GPMConfig,
    collate_groups,
    encode_group,
    preference_matrix,
)
from gpm_hf.scoring import (
    RewardModelScorer,
    hub_options_of,
    is_classifier,
    load_preference_model,
    load_reward_model,
    load_tokenizer,
    whole_models,
)
from gpm_hf.training.reward_model_signal import RewardModelSignal


def group_by_prompt(prompts, group_size=None):
    """
    Groups rows that answer the same prompt, wherever they stand: TRL's trainers lay groups out in different ways.

    Args:
        prompts (`list[str]` or `list[list[dict]]`): one prompt per row.
        group_size (`int`, *optional*): cuts the rows of one prompt into groups of this size, in their order; a prompt
            that is in the data set twice then makes two groups.

    Returns:
        `list[list[int]]`: row numbers of each group, in the order of their first rows.

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


class GPMSignal:
    """
    Log-odds by a [`~gpm_hf.modeling.GPMForPreference`] (a Bradley-Terry model of ours included).

    Args:
        model ([`~gpm_hf.modeling.GPMForPreference`] or [`~peft.PeftModel`] around one): used in evaluation mode, its
            parameters frozen. Call [`~GPMSignal.prepare`] before the first use.
        tokenizer (`PreTrainedTokenizerBase`): the model's own.
        batch_size (`int`, defaults to 16): sequences encoded at once.
    """

    def __init__(self, model, tokenizer, batch_size=16):
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.config = model.config
        self.device = None

    def prepare(self, accelerator):
        """
        Places the model for inference beside a policy in training. ZeRO-3 and FSDP shard the backbone; the heads, a
        few thousand numbers, stay whole and in float32, where mixed precision would round them. In any other set-up
        every process holds the whole model, which needs no wrapper: nothing of it is trained.
        """
        gpm = self.model.get_base_model() if is_peft_model(self.model) else self.model
        if gpm.embedding_head.weight.numel() == 0:
            raise ValueError(
                "The preference model was loaded while ZeRO-3 was active, which split its heads. Pass its path "
                "instead of the model, or load it before the training arguments are made."
            )
        # A model placed by its loader (quantised, or with a device map) is where it has to be.
        if gpm.device.type != accelerator.device.type:
            gpm.to(accelerator.device)
        if accelerator.distributed_type == DistributedType.DEEPSPEED and is_deepspeed_zero3_enabled():
            gpm.model = prepare_deepspeed(gpm.model, accelerator)
        elif accelerator.distributed_type == DistributedType.FSDP:
            gpm.model = prepare_fsdp(gpm.model, accelerator)
        self.device = accelerator.device

    def __call__(self, prompts, completions, groups):
        """
        Scores groups of completions. All processes call this together.

        Args:
            prompts (`list[str]` or `list[list[dict]]`): the prompts of the n completions of this process.
            completions (`list[str]` or `list[list[dict]]`): the completions; every process has as many.
            groups (`list[list[int]]`): row numbers, counted through all processes, of the members of each group.

        Returns:
            `list[torch.Tensor]`: for each group a matrix of log-odds of shape (K, K), the same on every process,
            exactly skew-symmetric, with NaN in the rows and columns of unscorable completions.

        Raises:
            ValueError: where the model's embeddings are not finite; the sentence names the prompt.
        """
        rows = gather(self._embed(prompts, completions))
        scorable = rows[:, 0] > 0
        broken = (scorable & ~rows.isfinite().all(-1)).nonzero().flatten().tolist()
        if broken:
            prompt = _shorten(gather_object(list(prompts))[broken[0]])
            raise ValueError(
                f"The preference model's scores are not finite for the prompt {prompt}. Its weights contain NaN or "
                f"infinity, or its hidden states overflow in {self.model.dtype}: check the checkpoint, or load it in "
                "another type (`preference_model_init_kwargs`, `dtype`)."
            )
        return [self._matrix(rows[group]) for group in groups]

    def _matrix(self, rows):
        """The (K, K) log-odds of one group from its rows, see `_embed`."""
        scorable = rows[:, 0] > 0
        dim = self.config.output_dim
        embeddings, scales = rows[:, 1:].split([dim, rows.shape[1] - 1 - dim], 1)
        # Processes that share a group computed the prompt's scales in different batches: one of them is taken, so that
        # the matrix is exactly skew-symmetric.
        scales = scales[int(scorable.int().argmax())] if self.config.scale_gate else None
        scores = preference_matrix(embeddings, scales, self.config.tau)
        unscorable = ~scorable
        scores[unscorable] = torch.nan
        scores[:, unscorable] = torch.nan
        return scores

    @torch.no_grad()
    def _embed(self, prompts, completions):
        """A tensor of shape (n, 1 + 2k + k): whether a completion is scorable, its embedding, its prompt's scales."""
        dim = self.config.output_dim
        blocks = dim // 2 if self.config.scale_gate else 0
        rows = torch.zeros(len(prompts), 1 + dim + blocks, device=self.device)
        local_groups, encoded = [], []
        for group in group_by_prompt(prompts):
            group, sequences = self._encode(group, prompts, completions)
            if group:
                local_groups.append(group)
                encoded.append(sequences)
        # A process without a scorable completion still takes part in the forwards of a sharded model.
        batch = collate_groups(encoded or [EncodedGroup([[0]], [0])], 0, with_prompts=self.config.scale_gate)
        gate_rows = batch.pop("gate_rows", None)
        # Sharded weights are collected by all processes at every forward, so all must run as many.
        parts = -(-len(batch["input_ids"]) // self.batch_size)
        forwards = int(gather(torch.tensor([parts], device=self.device)).max())
        embeddings, scales = self.model.embed_batch(batch, self.batch_size, forwards)
        first = 0
        for index, group in enumerate(local_groups):
            rows[group, 0] = 1.0
            rows[group, 1 : 1 + dim] = embeddings[first : first + len(group)]
            if blocks:
                rows[group, 1 + dim :] = scales[gate_rows[index]]
            first += len(group)
        return rows

    def _encode(self, group, prompts, completions):
        """The scorable rows of a group and their token ids; a policy may sample what is empty once it is rendered."""
        while group:
            texts = [completions[row] for row in group]
            try:
                return group, encode_group(self.tokenizer, prompts[group[0]], texts, **self.config.encoding_options)
            except EmptyResponseError as error:
                group = [*group[: error.index], *group[error.index + 1 :]]
        return [], None


class CallableSignal:
    """
    Log-odds by a function of your own: a model in another library, a judge behind an API, a table.

    Args:
        function (`Callable`): `f(prompts, groups)` gets G prompts and for each the list of its K completions (strings,
            or lists of messages), and returns for each a K x K skew-symmetric matrix of log-odds, or `None` where it
            cannot score the group. Each process calls it with its share of the groups, and not at all when it has
            none.
    """

    def __init__(self, function):
        self.function = function

    def prepare(self, accelerator):
        """There is nothing to place."""

    def __call__(self, prompts, completions, groups):
        """As [`GPMSignal`]; a matrix that is not finite, not skew-symmetric or of another size is a `ValueError`."""
        prompts, completions = gather_object(list(prompts)), gather_object(list(completions))
        state = PartialState()
        count = state.num_processes
        mine = groups[state.process_index :: count]
        matrices = []
        if mine:
            matrices = self.function(
                [prompts[group[0]] for group in mine], [[completions[i] for i in group] for group in mine]
            )
            if len(matrices) != len(mine):
                raise ValueError(f"The preference function returned {len(matrices)} matrices for {len(mine)} groups.")
        matrices = [
            None if scores is None else torch.as_tensor(scores, dtype=torch.float32).cpu() for scores in matrices
        ]
        # Gathered process by process, while the shares were dealt out in turn.
        dealt = [index for process in range(count) for index in range(process, len(groups), count)]
        results = [None] * len(groups)
        for index, scores in zip(dealt, gather_object(matrices), strict=True):
            results[index] = self._check(scores, len(groups[index]), prompts[groups[index][0]]).to(state.device)
        return results

    def _check(self, scores, size, prompt):
        if scores is None:
            return torch.full((size, size), torch.nan)
        if scores.shape != (size, size):
            raise ValueError(
                f"The preference function returned a matrix of shape {tuple(scores.shape)} for {size} completions of "
                f"the prompt {_shorten(prompt)}."
            )
        if not bool(scores.isfinite().all()):
            raise ValueError(
                f"The preference function returned NaN or infinity for the prompt {_shorten(prompt)}. For a group "
                "that it cannot score it must return None."
            )
        if not torch.allclose(scores, -scores.T, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"The preference function's matrix for the prompt {_shorten(prompt)} is not skew-symmetric. It must "
                "return log-odds, S[i, j] = -S[j, i]; a matrix of probabilities P becomes one by `log(P / (1 - P))`."
            )
        return scores


def load_preference_signal(preference_model, processing_class=None, batch_size=16, init_kwargs=None):
    """
    The signal of a preference model in any of its forms.

    Args:
        preference_model: a path or Hub id of a [`~gpm_hf.modeling.GPMForPreference`] (or of a LoRA adapter of one,
            which is merged), such a model; the same of a sequence-classification reward model with one label, or a
            [`~gpm_hf.scoring.RewardModelScorer`] that says how it is read; or a function as in [`CallableSignal`].
        processing_class (`PreTrainedTokenizerBase`, *optional*): the preference model's tokenizer; by default the one
            saved beside it.
        batch_size (`int`, defaults to 16): sequences encoded at once.
        init_kwargs (`dict`, *optional*): passed to `from_pretrained` with a path (`dtype`, `revision`, ...).

    Returns:
        [`GPMSignal`], [`~gpm_hf.training.reward_model_signal.RewardModelSignal`] or [`CallableSignal`].

    Raises:
        ValueError: where there is no preference model, its heads are missing, or its tokenizer is not known.
    """
    init_kwargs = init_kwargs or {}
    if isinstance(preference_model, str):
        name = preference_model
        preference_model = _load(name, init_kwargs)
        if processing_class is None:
            processing_class = load_tokenizer(name, **hub_options_of(init_kwargs))
    elif init_kwargs:
        raise ValueError(
            "`preference_model_init_kwargs` are for a preference model given by its path; this one is loaded."
        )
    if isinstance(preference_model, RewardModelScorer):
        return RewardModelSignal(preference_model)
    if not isinstance(preference_model, nn.Module):
        if not callable(preference_model):
            raise TypeError(
                f"A preference model is a path, a model or a function, not a {type(preference_model).__name__}."
            )
        return CallableSignal(preference_model)

    config = preference_model.config
    if config.model_type != GPMConfig.model_type and config.num_labels != 1:
        raise ValueError(
            f"{type(preference_model).__name__} is no preference model: neither a GPMForPreference nor a "
            f"sequence-classification reward model with one label (this one says num_labels={config.num_labels})."
        )
    if processing_class is None:
        if not config.name_or_path:
            raise ValueError(
                "The preference model does not say where it was loaded from: pass its tokenizer as "
                "`preference_processing_class` (in GPMReward `processing_class`)."
            )
        processing_class = load_tokenizer(config.name_or_path)
    if config.model_type != GPMConfig.model_type:
        return RewardModelSignal(RewardModelScorer(preference_model, processing_class, batch_size=batch_size))
    return GPMSignal(preference_model, processing_class, batch_size)


def _load(name, init_kwargs):
    # ZeRO-3 would split the heads while loading, see `GPMSignal.prepare`.
    with whole_models():
        if is_classifier(name, init_kwargs):
            return load_reward_model(name, num_labels=1, **init_kwargs)
        return load_preference_model(name, merge=True, **init_kwargs)


def _shorten(prompt, length=200):
    text = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, default=repr)
    return repr(text if len(text) <= length else text[:length] + "...")
