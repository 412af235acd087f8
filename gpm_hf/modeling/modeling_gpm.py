"""
The general preference model: a decoder language model that embeds a response, and a skew-symmetric form between two
embeddings that says how likely one response is preferred to the other.

"Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment", ICML 2025, section 4.
"""

# First: it says which transformers is needed, before something is asked for that an old one has not.
from .configuration_gpm import GPMConfig  # isort: skip

import inspect
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, DynamicCache, GgufConfig
from transformers import initialization as init
from transformers.dynamic_module_utils import custom_object_save
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING
from transformers.utils import ModelOutput, can_return_tuple, logging

from .cache_gpm import CACHE_NAMES, PromptCache, cache_argument
from .encoding_gpm import encode_group, rows_of_groups
from .messages_gpm import as_responses, is_list_of_prompts, listed
from .packed_attention_gpm import SUFFIX
from .packing_gpm import packing_obstacle, share_prompts
from .pipeline_gpm import custom_pipelines
from .pooling_gpm import input_device, states_at_ends
from .remote_backbone_gpm import is_remote, new_backbone, save_backbone_code
from .rounding_gpm import rounding_bound, within_rounding
from .scores_gpm import mean_scores, preference_matrix, rank_responses, unit_norm
from .weight_files_gpm import check_one_model, saved_as_one_model

logger = logging.get_logger(__name__)


@dataclass
class GPMOutput(ModelOutput):
    """
    Output of [`GPMForPreference`]. There are no `logits` on purpose: an embedding is no reward, and code that reads
    `logits[:, 0]` as one would compute a wrong number without an error.

    Args:
        embeddings (`torch.FloatTensor` of shape `(batch_size, output_dim)`): one embedding per sequence, float32. The
            first `embedding_dim` coordinates are the embedding head's. With a reward head two more follow, (r, 1): of
            such blocks the score is r_i - r_j, so whatever takes embeddings takes rewards.
        scales (`torch.FloatTensor` of shape `(batch_size, output_dim / 2)`, *optional*): the gate's scales lambda(x)
            of each sequence's prompt, float32, and 1 for the block of a reward head; `None` without a gate, which
            means ones.
        response_states (`torch.FloatTensor` of shape `(batch_size, hidden_size)`): the backbone's last hidden state
            at each sequence's last token, from which the embedding is made.
        prompt_states (`torch.FloatTensor` of shape `(batch_size, hidden_size)`, *optional*): the same at the last
            token of the prompt, from which the scales are made.
        hidden_states, attentions (`tuple(torch.FloatTensor)`, *optional*): the backbone's, of all layers, where
            `output_hidden_states=True` or `output_attentions=True` asks for them.
    """

    embeddings: torch.FloatTensor | None = None
    scales: torch.FloatTensor | None = None
    response_states: torch.FloatTensor | None = None
    prompt_states: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
    attentions: tuple[torch.FloatTensor, ...] | None = None


class Float32Linear(nn.Linear):
    """
    A bias-free linear map computed in float32 whatever the backbone's type, also under autocast: a rounding error of a
    bfloat16 embedding, divided by tau = 0.1, is a visible error of the log-odds.
    """

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features, bias=False, dtype=torch.float32)

    def forward(self, states):
        with torch.autocast(device_type=states.device.type, enabled=False):
            states, weight = states.float(), self.weight.float()
            if self.out_features == 1:
                # How a matrix times one vector is rounded depends on where the vector lies in memory: a saved model
                # would not score as itself to the last bit.
                return (states * weight).sum(-1, keepdim=True)
            return nn.functional.linear(states, weight)


class GPMForPreference(PreTrainedModel):
    """
    A general preference model on any decoder backbone.

    Parameters are `model.*` (the backbone), `embedding_head.weight` of shape (embedding_dim, hidden_size), with a gate
    `gate_head.weight` of shape (embedding_dim / 2, hidden_size), and with a reward head `reward_head.weight` of shape
    (1, hidden_size). With `embedding_dim=1` it is a Bradley-Terry reward model.

    Example:

    ```python
    model = GPMForPreference.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct", embedding_dim=6)
    ```
    """

    config_class = GPMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    input_modalities = ("text",)
    _auto_class = "AutoModel"
    # The backbone decides which attention it can run; this class has none of its own.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # "strict" acts for bfloat16 and float16; quantisers read the other one. Full names, because these are searched
    # for in parameter names and "gate" alone would also match a backbone's `gate_proj`.
    _keep_in_fp32_modules = ["embedding_head", "gate_head", "reward_head"]
    _keep_in_fp32_modules_strict = ["embedding_head", "gate_head", "reward_head"]
    # The checkpoint of a causal language model has an output head that a preference model does not use.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\."]

    def __init__(self, config, backbone=None, heads_follow=False):
        super().__init__(config)
        # Here, so that whatever saves the model writes it; being imported above, the pipeline's file is saved as well.
        config.custom_pipelines = custom_pipelines()
        hidden_size = config.text_config.hidden_size
        if backbone is None:
            # Without a dtype the backbone would keep the one that its own configuration remembers.
            backbone = new_backbone(config.text_config, torch.get_default_dtype())
        self.model = backbone
        self.embedding_head = Float32Linear(hidden_size, config.embedding_dim)
        self.gate_head = Float32Linear(hidden_size, config.embedding_dim // 2) if config.scale_gate else None
        self.reward_head = Float32Linear(hidden_size, 1) if config.reward_head else None
        self.post_init()
        if heads_follow:
            # No alarm about heads that the checkpoint lacks: an adapter brings them.
            self._keys_to_ignore_on_load_missing |= {f"^{re.escape(name)}" for name in _HEADS}
        # Where padding and EOS share an id, `padding_idx` would silence the gradient of the EOS embedding. Padded
        # positions are masked here, so nothing needs it.
        self.get_input_embeddings().padding_idx = None

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.gate_head or module is self.reward_head:
            # Equal scales and equal rewards to start with. States are large and alike, so a random gate would begin
            # saturated and silence blocks before they have learnt anything, and random rewards would drown them.
            init.zeros_(module.weight)

    def get_submodule(self, target):
        # PEFT asks for this name when it is about to put virtual tokens before the prompts, and for nothing else.
        if target == "embeddings.word_embeddings":
            raise ValueError(
                "Prompt and prefix tuning put virtual tokens before each prompt, where a preference model's scores "
                "would not see them and its gate would read a wrong token. Use an adapter of layers, such as LoRA."
            )
        return super().get_submodule(target)

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        prompt_lengths=None,
        response_states=None,
        prompt_states=None,
        response_lengths=None,
        **kwargs,
    ):
        """
        Embeds a batch of sequences, each a prompt with one response; or of packed rows, each a prompt with K
        responses, which gives the same K outputs for less (see `packing_gpm.py`).

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, length)`): token ids, padded on either side.
            attention_mask (`torch.LongTensor` of shape `(batch_size, length)`, *optional*): 1 where there is a token,
                0 where there is padding. Absent means no padding at all.
            prompt_lengths (`torch.LongTensor` of shape `(batch_size,)`): the number of tokens of each sequence's
                prompt, padding not counted. Needed with a scale gate; without one it only adds `prompt_states`. A
                number that the sequence does not have makes NaN in a compiled or exported model, which cannot raise.
            response_states, prompt_states (`torch.FloatTensor` of shape `(batch_size, hidden_size)`, *optional*):
                hidden states of an earlier output; given `response_states` instead of `input_ids`, only the heads are
                computed. `prompt_states` alone are those of a prompt that is in the cache already.
            response_lengths (`torch.LongTensor` of shape `(batch_size, K)`, *optional*): makes the rows packed ones:
                a prompt of `prompt_lengths` tokens, then K responses of these numbers of tokens. The output has
                batch_size * K rows, those of the first prompt's responses first. Which backbones can do so
                [`packing_obstacle`] says; `_with_shared_prompts` is added to their attention's name from then on, and
                for all else it is what it was.
            kwargs: passed on to the backbone. With tokens in a cache (under the name that [`cache_argument`] gives),
                `attention_mask` covers them too, and the gate is given `prompt_states`: `prompt_lengths` could point
                to tokens whose states are gone.

        Returns:
            [`GPMOutput`]; its values as a tuple with `return_dict=False`.

        Raises:
            ValueError: without `input_ids` (for which `inputs_embeds` cannot stand), for lengths that the sequences do
                not have, or for a cache with `prompt_lengths` or without `attention_mask`.
        """
        output = ModelOutput()
        if response_states is None:
            if response_lengths is None:
                output, count = self._run_backbone(input_ids, attention_mask, prompt_lengths, **kwargs)
                response_states, pooled = states_at_ends(output.last_hidden_state, count, prompt_lengths)
            else:
                response_states, pooled = self.pool_packed(
                    input_ids, attention_mask, prompt_lengths, response_lengths, **kwargs
                )
            prompt_states = pooled if prompt_states is None else prompt_states

        embeddings = self.embedding_head(response_states)
        if self.config.normalize_embeddings:
            embeddings = unit_norm(embeddings)
        scales = None
        if self.config.scale_gate:
            if prompt_states is None:
                raise ValueError(
                    "This model has a scale gate, which reads the prompt's last token: pass `prompt_lengths`, the "
                    "number of prompt tokens of each sequence."
                )
            gate = self.gate_head(prompt_states)
            scales = gate.softmax(-1) if self.config.gate_activation == "softmax" else nn.functional.softplus(gate)
        if self.config.reward_head:
            # <R (r_i, 1), (r_j, 1)> = r_i - r_j: rewards are one block more, of scale 1, and all that gathers,
            # compares or draws embeddings holds for them too.
            rewards = self.reward_head(response_states)
            embeddings = torch.cat([embeddings, rewards, torch.ones_like(rewards)], -1)
            if scales is not None:
                scales = torch.cat([scales, torch.ones_like(scales[:, :1])], -1)
        return GPMOutput(
            embeddings=embeddings,
            scales=scales,
            response_states=response_states,
            prompt_states=prompt_states,
            hidden_states=output.get("hidden_states"),
            attentions=output.get("attentions"),
        )

    def pool(self, input_ids, attention_mask=None, prompt_lengths=None, **kwargs):
        """
        Hidden states that the heads read; arguments as in [`~GPMForPreference.forward`].

        Returns:
            `tuple`: `response_states` of shape (batch_size, hidden_size), at each sequence's last token, and
            `prompt_states` of the same shape, at its prompt's last token; `None` without `prompt_lengths`.
        """
        output, count = self._run_backbone(input_ids, attention_mask, prompt_lengths, **kwargs)
        return states_at_ends(output.last_hidden_state, count, prompt_lengths)

    def _run_backbone(self, input_ids, attention_mask, prompt_lengths, **kwargs):
        """The backbone's output, and of each of its columns the number of tokens up to there, in the cache or not."""
        # PEFT passes every argument that a model could have, as None.
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if input_ids is None or "inputs_embeds" in kwargs:
            raise ValueError(
                "GPMForPreference needs `input_ids` (or `response_states` of an earlier output), and takes no "
                "`inputs_embeds`: what they hold beside the prompt's own tokens, `prompt_lengths` would not count."
            )
        if attention_mask is None:
            if not kwargs.keys().isdisjoint(CACHE_NAMES):
                raise ValueError("With a cache give the `attention_mask`, over the tokens in the cache too.")
            attention_mask = torch.ones_like(input_ids)
        cached = attention_mask.shape[1] - input_ids.shape[1]
        if cached and prompt_lengths is not None:
            raise ValueError(
                f"`attention_mask` has {cached} columns more than `input_ids`: so many tokens are in the cache, and "
                "their states are gone. Give the gate `prompt_states` of the output that filled it, in place of "
                "`prompt_lengths`."
            )
        count = attention_mask.cumsum(-1)[:, cached:]
        kwargs["return_dict"] = True
        kwargs.setdefault("use_cache", False)
        # Position ids always: some backbones would count left padding as positions.
        position_ids = (count - 1).clamp(min=0)
        return self.model(input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs), count

    def pool_packed(self, input_ids, attention_mask, prompt_lengths, response_lengths, **kwargs):
        """
        As [`~GPMForPreference.pool`] for packed rows, of which each prompt is read once.

        Returns:
            `tuple`: `response_states` and `prompt_states`, both of shape (batch_size * K, hidden_size).

        Raises:
            ValueError: for a backbone that cannot, lengths that do not fit the rows, or a cache.
        """
        obstacle = packing_obstacle(self)
        if obstacle is not None:
            raise ValueError(f"Packed rows need another backbone: {obstacle} Give one sequence a row.")
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        if input_ids is None or prompt_lengths is None or not kwargs.keys().isdisjoint(CACHE_NAMES):
            raise ValueError("Packed rows need `input_ids` and `prompt_lengths`, and can have no cache.")
        if kwargs.get("output_hidden_states") or kwargs.get("output_attentions"):
            raise ValueError("Packed rows share one sequence in the backbone: its states are not theirs. Unpack them.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # What the attention layers read, also when gradient checkpointing runs them again; it is not saved.
        attention = self.config.text_config._attn_implementation.removesuffix(SUFFIX)
        self.config.text_config._attn_implementation = attention + SUFFIX
        sliding_window = self.config.text_config.to_dict().get("sliding_window")
        shared = share_prompts(attention, attention_mask, prompt_lengths, response_lengths, sliding_window)
        states = self.model(
            input_ids[attention_mask.bool()][None],
            # An empty mask: no backbone makes one of its own then, nor can it attend without the shared prompts.
            attention_mask=input_ids.new_empty(1, 1, 0, 0, dtype=torch.bool),
            position_ids=shared.position_ids,
            shared_prompts=shared,
            **{**kwargs, "return_dict": True, "use_cache": False},
        ).last_hidden_state[0]
        prompt_states = states[shared.prompt_ends].repeat_interleave(response_lengths.shape[1], dim=0)
        return states[shared.response_ends.flatten()], prompt_states

    def embed(self, tokenizer, prompt, responses, batch_size=16):
        """
        Embeds the responses to one prompt; K responses cost K encodes. The model is used in evaluation mode.

        Args:
            tokenizer (`PreTrainedTokenizerBase`): this model's tokenizer.
            prompt (`str`, `list[dict]` or `None`): a string, chat messages, or `None` when each response contains the
                prompt already; see `encoding_gpm.py`.
            responses (`list[str]` or `list[list[dict]]`): K responses.
            batch_size (`int`, defaults to 16): sequences encoded at once; on it the result depends by
                rounding alone, see [`~GPMForPreference.rounding_bound`].

        Returns:
            `tuple`: embeddings of shape (K, output_dim), and scales of shape (output_dim / 2,) or `None`, see
            [`GPMOutput`]: `preference_matrix(embeddings, scales, tau)` is `preference_scores`. `output_dim` is
            `embedding_dim`, and 2 more with a reward head.

        Raises:
            ValueError: empty responses, a sequence longer than the backbone's context, a template that cannot render
                the messages, or embeddings that are not finite.
        """
        group = encode_group(tokenizer, prompt, responses, **self.config.encoding_options)
        return self.embed_groups([group], batch_size)[0]

    def embed_groups(self, groups, batch_size=16, max_batch_tokens=None):
        """
        Embeds many groups at once, see [`~GPMForPreference.embed`]. Where a group's prompt is a good part of its
        tokens, it is encoded once for all its responses, with the keys and values of the prompt in a cache.

        Args:
            groups (`list[EncodedGroup]`): what `encode_group` returns.
            batch_size (`int`, defaults to 16): sequences encoded at once, across groups.
            max_batch_tokens (`int`, *optional*): in place of `batch_size`: as many sequences at once as have together
                at most so many tokens, padding included; a longer one goes alone. None is padded to more than twice
                its length. The result depends on neither.

        Returns:
            `list[tuple]`: embeddings and scales of each group.
        """
        if self.config.scale_gate:
            for group in groups:
                group.check_prompt()
        self.check_context(max(len(ids) for group in groups for ids in group.sequences))
        self.check_vocabulary(ids for group in groups for ids in (*group.sequences, group.prompt_ids or []))
        can_share = not self.model._is_stateful and _has_key_value_cache(self.config.text_config)
        can_share = can_share and cache_argument(self.model) is not None
        shared = [index for index, group in enumerate(groups) if can_share and group.prompt_is_worth_sharing]
        single = sorted(set(range(len(groups))) - set(shared))
        results = {}
        if shared:
            embedded = self._embed_shared([groups[index] for index in shared], batch_size, max_batch_tokens)
            results.update(zip(shared, embedded))
        if single:
            rows, prompt_lengths, gate_rows = rows_of_groups([groups[i] for i in single], self.config.scale_gate)
            embeddings, scales = self._embed_rows(rows, prompt_lengths, batch_size, max_batch_tokens)
            first = 0
            for place, index in enumerate(single):
                last = first + len(groups[index].sequences)
                results[index] = (embeddings[first:last], None if scales is None else scales[gate_rows[place]])
                first = last
        everything = torch.cat(
            [values.flatten() for pair in results.values() for values in pair if values is not None]
        )
        if not bool(everything.isfinite().all()):
            number = min(
                index
                for index, pair in results.items()
                if any(values is not None and not bool(values.isfinite().all()) for values in pair)
            )
            raise ValueError(
                f"Prompt {number}: the model's embeddings are not finite. Its weights contain NaN or infinity, or its "
                f"hidden states overflow in {self.dtype}: check the checkpoint, or load it in bfloat16 or float32."
            )
        return [results[index] for index in range(len(groups))]

    @torch.no_grad()
    def _embed_shared(self, groups, batch_size, max_batch_tokens):
        """Embeddings and scales of groups, each prompt encoded once; as many groups at a time as a batch holds."""
        results = {}
        with evaluation_mode(self):
            for part in _parts(
                [len(group.prompt_ids) for group in groups],
                batch_size,
                max_batch_tokens,
                wholes=[max(map(len, group.sequences)) for group in groups],
                rows=[len(group.sequences) for group in groups],
            ):
                prompts = [groups[index].prompt_ids for index in part]
                owners = [place for place, index in enumerate(part) for _ in groups[index].sequences]
                suffixes = [
                    ids[len(prompts[place]) :] for place, index in enumerate(part) for ids in groups[index].sequences
                ]
                embeddings, scales = self._embed_suffixes(prompts, owners, suffixes, batch_size, max_batch_tokens)
                first = 0
                for index in part:
                    last = first + len(groups[index].sequences)
                    results[index] = (embeddings[first:last], None if scales is None else scales[first])
                    first = last
        return [results[index] for index in range(len(groups))]

    def _embed_suffixes(self, prompts, owners, suffixes, batch_size, max_batch_tokens):
        """Embeds suffixes, each of them after its owner, the number of a prompt, in one pass over the prompts."""
        device = input_device(self)
        # On the left, so that the suffixes follow their prompts without a gap.
        prompt_ids, prompt_mask = _pad(prompts, device, left=True)
        columns = prompt_ids.shape[1]
        cache = DynamicCache(config=self.config.text_config)
        name = cache_argument(self.model)
        prompt_states = self(
            prompt_ids, prompt_mask, prompt_mask.sum(-1), use_cache=True, **{name: cache}
        ).prompt_states
        if cache.get_seq_length() != columns:
            raise RuntimeError(
                f"The backbone {self.config.text_config.model_type} left {cache.get_seq_length()} of {columns} prompt "
                "tokens in the cache: the responses would be read without their prompt."
            )
        lengths = [len(ids) for ids in suffixes]
        parts = _parts(lengths, batch_size, max_batch_tokens, wholes=[columns + length for length in lengths])
        outputs = []
        for part in parts:
            rows = torch.tensor([owners[index] for index in part], device=device)
            ids, mask = _pad([suffixes[index] for index in part], device)
            outputs.append(
                self(
                    ids,
                    torch.cat([prompt_mask[rows], mask], dim=1),
                    prompt_states=prompt_states[rows],
                    use_cache=True,
                    **{name: PromptCache(cache, rows)},
                )
            )
        return self._in_order(parts, outputs)

    def _embed_rows(self, rows, prompt_lengths, batch_size, max_batch_tokens=None, least_forwards=0):
        """Embeddings and scales of rows of token ids; the other arguments as in the methods that call this."""
        lengths = [len(ids) for ids in rows]
        self.check_context(max(lengths))
        # This model's own configuration: under ZeRO-3 DeepSpeed hangs its settings on the backbone as `config`.
        parts = _parts(lengths, batch_size, max_batch_tokens, apart=long_rope_from(self.config.text_config))
        outputs, device = [], input_device(self)
        with torch.no_grad(), evaluation_mode(self):
            for part in (*parts, *[parts[-1]] * (least_forwards - len(parts))):
                ids, mask = _pad([rows[index] for index in part], device)
                gate_reads = None
                if self.config.scale_gate:
                    gate_reads = torch.tensor([prompt_lengths[index] for index in part], device=device)
                outputs.append(self(ids, mask, gate_reads))
        return self._in_order(parts, outputs)

    def _in_order(self, parts, outputs):
        """Embeddings and scales of sequences in their own order, from what the model gave for the parts."""
        order = torch.tensor([index for part in parts for index in part], device=outputs[0].embeddings.device)
        inverse = order.argsort()
        embeddings = torch.cat([output.embeddings for output in outputs])[inverse]
        scales = torch.cat([output.scales for output in outputs])[inverse] if self.config.scale_gate else None
        return embeddings, scales

    def embed_batch(self, batch, batch_size=16, least_forwards=0):
        """
        Embeds a collated batch of any size in parts, in evaluation mode.

        Args:
            batch (`dict`): `input_ids`, `attention_mask` and, with a gate, `prompt_lengths`, right-padded, on any
                device (`collate_groups` without its `gate_rows`).
            batch_size (`int`, defaults to 16): sequences encoded at once.
            least_forwards (`int`, defaults to 0): repeat the last part up to this number of forwards. The processes of
                a sharded model must all run as many.

        Returns:
            `tuple`: embeddings of shape (rows, output_dim), and scales of shape (rows, output_dim / 2) or `None`.
        """
        lengths = batch["attention_mask"].sum(-1).tolist()
        rows = [ids[:length] for ids, length in zip(batch["input_ids"].tolist(), lengths)]
        self.check_vocabulary(rows)
        prompt_lengths = batch["prompt_lengths"].tolist() if self.config.scale_gate else None
        return self._embed_rows(rows, prompt_lengths, batch_size, least_forwards=least_forwards)

    def preference_scores(self, tokenizer, prompt, responses, batch_size=16, max_batch_tokens=None):
        """
        Log-odds of every response against every other: P(i preferred to j) = sigmoid(S[i, j]).

        Args:
            tokenizer (`PreTrainedTokenizerBase`): this model's tokenizer.
            prompt (`str` or `list[dict]`): as in [`~GPMForPreference.embed`]; or a list of N prompts.
            responses (`list`): K responses; or a list of N lists of responses, whose sizes may differ.
            batch_size (`int`, defaults to 16): sequences encoded at once; on it the result depends by
                rounding alone, see [`~GPMForPreference.rounding_bound`].
            max_batch_tokens (`int`, *optional*): tokens encoded at once, in place of `batch_size`, see
                [`~GPMForPreference.embed_groups`].

        Returns:
            `torch.FloatTensor` of shape (K, K), exactly skew-symmetric; or a list of N of them.
        """
        prompt = listed(prompt)
        if not is_list_of_prompts(prompt):
            return self.preference_scores(tokenizer, [prompt], [responses], batch_size, max_batch_tokens)[0]
        responses = listed(responses)
        if len(prompt) != len(responses):
            raise ValueError(f"{len(prompt)} prompts need as many lists of responses, got {len(responses)}.")
        groups = [
            encode_group(tokenizer, one_prompt, its_responses, **self.config.encoding_options)
            for one_prompt, its_responses in zip(prompt, responses)
        ]
        matrices = []
        for number, (embeddings, scales) in enumerate(self.embed_groups(groups, batch_size, max_batch_tokens)):
            try:
                matrices.append(preference_matrix(embeddings, scales, self.config.tau))
            except ValueError as error:
                raise ValueError(f"Prompt {number}: {error}") from error
        return matrices

    def compare(self, tokenizer, prompt, a, b):
        """
        Probability that response `a` is preferred to response `b`.

        Returns:
            `float`: P(a > b | x), between 0 and 1.
        """
        return float(self.preference_scores(tokenizer, prompt, [a, b])[0, 1].sigmoid())

    @property
    def rounding_bound(self):
        """
        How far a log-odds moves with what else is in the batch at most, as far as was measured (`float`): at
        tau = 0.1 0.001 in float32, 0.2 in float16, 1.5 in bfloat16, see `rounding_gpm.py`. `None` for models without
        unit norm: there it depends on the size of rewards or embeddings.
        """
        return rounding_bound(self.config, self.dtype)

    def rank(self, tokenizer, prompt, responses, batch_size=16):
        """
        Ranks the responses to one prompt by their mean score against the group. Warns once where two neighbours are
        closer than [`~GPMForPreference.rounding_bound`]: in float32 next to none are.

        Returns:
            `list[int]`: indices of the responses, best first. A list of prompts gives a list of rankings.
        """
        prompt = listed(prompt)
        many = is_list_of_prompts(prompt)
        responses = [as_responses(group) for group in responses] if many else as_responses(responses)
        for group in responses if many else [responses]:
            if len(group) < 2:
                raise ValueError(f"Ranking needs at least two responses, got {len(group)}.")
        scores = self.preference_scores(tokenizer, prompt, responses, batch_size)
        for one in scores if many else [scores]:
            if within_rounding(mean_scores(one), self.rounding_bound):
                logger.warning_once(
                    f"Some responses are ranked by less than rounding in {self.dtype} can tell: their order may "
                    "change with what else is in the batch. Load the model with dtype=torch.float32."
                )
        return [rank_responses(one).tolist() for one in scores] if many else rank_responses(scores).tolist()

    @classmethod
    def from_backbone(cls, name_or_path, config=None, heads_follow=False, **kwargs):
        """
        A preference model on a language model, its heads freshly initialised and to be trained.

        Args:
            name_or_path (`str`): a causal language model or its base model, a Hub id or a folder.
            config ([`GPMConfig`], *optional*): a whole configuration, in place of the options below.
            heads_follow (`bool`, defaults to `False`): whether an adapter, loaded next, brings trained heads; then
                nothing is said about the checkpoint having none.
            kwargs: options of [`GPMConfig`] (`embedding_dim`, `scale_gate`, ...) and of
                [`~PreTrainedModel.from_pretrained`] (`dtype`, `revision`, `gguf_file`, `device_map`, ...). With
                `trust_remote_code=True` the code beside the backbone's weights is run, and saved with the model.

        Returns:
            [`GPMForPreference`]

        Raises:
            ValueError: for a checkpoint that is no decoder language model, lacks backbone weights, or already is a
                preference model; for a folder with the weights of two models.
        """
        check_one_model(name_or_path, both_formats=True)
        hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
        gpm_options = {name: kwargs.pop(name) for name in _GPM_OPTIONS if name in kwargs}
        # Left out it would be asked for on the terminal, of which a job has none.
        trust_remote_code = bool(kwargs.pop("trust_remote_code", None))
        if config is None:
            text_config = AutoConfig.from_pretrained(name_or_path, trust_remote_code=trust_remote_code, **hub_options)
            _check_backbone(name_or_path, text_config)
            config = GPMConfig(text_config=text_config, **gpm_options)
        elif gpm_options:
            raise ValueError(f"Give either `config` or the options {sorted(gpm_options)}, not both.")

        if "gguf_file" in kwargs:
            # The reader of GGUF files knows language models only. Dequantised, because a model that is flagged as
            # quantised cannot be saved.
            quantization = GgufConfig(dequantize=True)
            backbone = AutoModel.from_pretrained(name_or_path, quantization_config=quantization, **kwargs)
            config.text_config = backbone.config
            model = cls(config, backbone)
            model.name_or_path = config.name_or_path = name_or_path
            config.text_config.name_or_path = ""
            return model
        prefix = _backbone_prefix(config.text_config)
        if prefix != cls.base_model_prefix:
            kwargs["key_mapping"] = {rf"^{prefix}\.": f"{cls.base_model_prefix}.", **kwargs.pop("key_mapping", {})}
        model, info = super().from_pretrained(
            name_or_path, config=config, heads_follow=heads_follow, output_loading_info=True, **kwargs
        )
        _check_complete(name_or_path, [name for name in info["missing_keys"] if not name.startswith(_HEADS)])
        # A recorded key mapping would make `save_pretrained` write the backbone's own names back.
        model._weight_conversions = None
        if os.path.isdir(name_or_path):
            # A folder's path means nothing to others: keep it out of the saved configuration.
            model.config.text_config.name_or_path = ""
        return model

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """
        Loads a saved preference model, see [`~PreTrainedModel.from_pretrained`].

        Raises:
            ValueError: for a checkpoint without the heads, which transformers would fill with random numbers; for a
                folder with the weights of two models.
        """
        if pretrained_model_name_or_path is not None:
            check_one_model(os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or ""))
        return_info = kwargs.pop("output_loading_info", False)
        if kwargs.pop("trust_remote_code", None) and "config" not in kwargs:
            # The parent would load it without saying so.
            hub_options = {name: kwargs[name] for name in _HUB_OPTIONS if name in kwargs}
            kwargs["config"] = cls.config_class.from_pretrained(
                pretrained_model_name_or_path, trust_remote_code=True, **hub_options
            )
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        missing = sorted(name for name in info["missing_keys"] if name.startswith(_HEADS))
        if missing:
            raise ValueError(
                f"{pretrained_model_name_or_path} holds no preference model: its checkpoint lacks {missing}. To start "
                "one from a language model use `GPMForPreference.from_backbone(name_or_path)`."
            )
        _check_complete(pretrained_model_name_or_path, info["missing_keys"])
        if is_remote(model.config.text_config):
            model.config.text_config.name_or_path = ""
        return (model, info) if return_info else model

    def heads(self):
        """The modules on top of the backbone, by name: the embedding head and, where there are, gate and reward."""
        heads = {"embedding_head": self.embedding_head, "gate_head": self.gate_head, "reward_head": self.reward_head}
        return {name: head for name, head in heads.items() if head is not None}

    def save_pretrained(self, save_directory, is_main_process=True, *args, **kwargs):
        """
        Saves the model, see [`~PreTrainedModel.save_pretrained`]; weights of another model that are in the folder go,
        and a process that is killed leaves the old model or the new one, see `weight_files_gpm.py`. A backbone's own
        code is saved beside this one.
        """
        # The shards of a distributed checkpoint come from all processes.
        if not is_main_process or kwargs.get("distributed_checkpoint") or os.path.isfile(save_directory):
            super().save_pretrained(save_directory, is_main_process, *args, **kwargs)
            if is_main_process and os.path.isdir(save_directory):
                save_backbone_code(self, save_directory)
            return
        if kwargs.get("push_to_hub"):
            kwargs.setdefault("repo_id", os.path.basename(os.path.abspath(save_directory)))
        with saved_as_one_model(save_directory) as aside:
            save_backbone_code(self, aside)
            super().save_pretrained(aside, is_main_process, *args, **kwargs)

    def save_config_and_code(self, folder):
        """
        Writes what a stranger needs beside the weights: `config.json` and this code, named in its `auto_map` and its
        `custom_pipelines`.
        """
        save_backbone_code(self, folder)
        custom_object_save(self, folder, config=self.config)
        self.config.save_pretrained(folder)

    @property
    def context_length(self):
        """The most tokens a sequence may have; `None` for a backbone whose positions have no limit."""
        return getattr(self.config.text_config, "max_position_embeddings", None)

    def check_vocabulary(self, rows):
        """Raises `ValueError` for token ids that the backbone has no embedding for."""
        size = self.config.text_config.vocab_size
        largest = max((max(ids, default=0) for ids in rows), default=0)
        if largest >= size:
            raise ValueError(
                f"The text has a token with the id {largest}, and the model has embeddings for 0 to {size - 1}: the "
                "tokenizer has tokens that the model does not know. Use the tokenizer that was saved with it."
            )

    def check_context(self, length):
        """Raises `ValueError` for a sequence that is longer than the backbone's context."""
        limit = self.context_length
        if limit is not None and length > limit:
            raise ValueError(
                f"A prompt with its response has {length} tokens, but the backbone's context holds {limit}. Shorten "
                "the text, or use a backbone with a longer context."
            )


_HEADS = ("embedding_head.", "gate_head.", "reward_head.")
_GPM_OPTIONS = tuple(inspect.signature(GPMConfig.__init__).parameters)[2:-1]
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "gguf_file")


def _check_complete(name_or_path, missing):
    if missing:
        raise ValueError(
            f"{name_or_path} is not a complete checkpoint: it lacks {len(missing)} weights, such as "
            f"{min(missing)!r}, which would be random numbers."
        )


def _check_backbone(name_or_path, config):
    if config.model_type == GPMConfig.model_type:
        raise ValueError(f"{name_or_path} already is a preference model: load it with `from_pretrained`.")
    if config.is_encoder_decoder:
        raise ValueError(f"{name_or_path} is an encoder-decoder; a preference model needs a decoder language model.")
    if type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_decoder:
        raise ValueError(
            f"{name_or_path} is an encoder ({config.model_type}), in which a prompt's states would depend on the "
            "response; a preference model needs a decoder language model."
        )
    if config.get_text_config() is not config:
        raise ValueError(
            f"{name_or_path} is a multimodal model ({config.model_type}); a preference model needs a text-only "
            f"checkpoint ({config.get_text_config().model_type})."
        )


def _backbone_prefix(config):
    """The name under which a causal language model of this kind keeps its base model, such as "model"."""
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return GPMForPreference.base_model_prefix
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].base_model_prefix


# Modules that are in evaluation mode for a while: how many calls need it, and what they were before the first one.
_EVALUATED: WeakKeyDictionary = WeakKeyDictionary()
_EVALUATED_LOCK = Lock()


@contextmanager
def evaluation_mode(model):
    """
    The model without dropout, and afterwards as it was. Module by module: a caller may keep a part of it in evaluation
    mode while it trains the rest. Of several threads the last one to leave puts a module back.
    """
    with _EVALUATED_LOCK:
        modules = list(model.modules())
        for module in modules:
            users, was_training = _EVALUATED.get(module, (0, module.training))
            _EVALUATED[module] = (users + 1, was_training)
        model.eval()
    try:
        yield
    finally:
        with _EVALUATED_LOCK:
            for module in modules:
                users, was_training = _EVALUATED.pop(module)
                if users > 1:
                    _EVALUATED[module] = (users - 1, was_training)
                else:
                    module.training = was_training


def _has_key_value_cache(config):
    """Whether a prompt's keys and values are all that its responses need to know of it in such a backbone."""
    # Layers that keep a running state instead cannot be told where a left-padded prompt begins.
    layer_types = config.to_dict().get("layer_types") or []
    return set(layer_types) <= {"full_attention", "sliding_attention"} and long_rope_from(config) is None


def long_rope_from(config):
    """
    The number of tokens above which the backbone turns all positions of a batch by other angles ("longrope", as in
    Phi-3); `None` for all others. What is shorter must then neither be cached for nor batched with what is longer.
    """
    settings = config.to_dict()
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    kinds = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    if not any(kind.get("rope_type", kind.get("type")) == "longrope" for kind in kinds):
        return None
    limits = [kind.get("original_max_position_embeddings") for kind in (*kinds, settings)]
    return next(limit for limit in limits if limit)


def _parts(lengths, batch_size, max_batch_tokens=None, wholes=None, rows=None, apart=None):
    """
    Cuts numbered sequences, or groups of them, into parts to be encoded at once, longest first: little is spent on
    padding, and what does not fit into memory fails at once.

    Args:
        lengths (`list[int]`): by which they are sorted.
        batch_size (`int`): the most rows of a part.
        max_batch_tokens (`int`, *optional*): in its place the most tokens of a part: its rows times its longest. Then
            nothing goes with what is more than twice as long, either.
        wholes (`list[int]`, *optional*): lengths that count as tokens, where they are not `lengths`.
        rows (`list[int]`, *optional*): the rows that each one takes, by default 1.
        apart (`int`, *optional*): what is longer than this goes with nothing that is not.

    Returns:
        `list[list[int]]`: numbers.
    """
    if (batch_size if max_batch_tokens is None else max_batch_tokens) < 1:
        raise ValueError(f"batch_size and max_batch_tokens must be at least 1, got {batch_size}, {max_batch_tokens}.")
    parts, count, longest = [[]], 0, 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        size = 1 if rows is None else rows[number]
        length = (lengths if wholes is None else wholes)[number]
        if parts[-1]:
            first = lengths[parts[-1][0]]
            if max_batch_tokens is None:
                is_full = count + size > batch_size
            else:
                is_full = (count + size) * max(longest, length) > max_batch_tokens or 2 * lengths[number] < first
            if is_full or (apart is not None and lengths[number] <= apart < first):
                parts.append([])
                count = longest = 0
        parts[-1].append(number)
        count += size
        longest = max(longest, length)
    return parts


def _pad(sequences, device, left=False):
    """Token ids and attention mask of shape (rows, length)."""
    length = max(len(ids) for ids in sequences)
    input_ids = torch.zeros(len(sequences), length, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(sequences):
        columns = slice(length - len(ids), length) if left else slice(0, len(ids))
        input_ids[row, columns] = torch.tensor(ids)
        attention_mask[row, columns] = 1
    return input_ids.to(device), attention_mask.to(device)
