"""
The general preference model: a decoder language model that embeds a response, and a skew-symmetric form between two
embeddings that says how likely one response is preferred to the other.

"Beyond Bradley-Terry Models: A General Preference Model for Language Model Alignment", ICML 2025, section 4.
"""

# First: it says which transformers is needed, before something is asked for that an old one has not.
from .configuration_gpm import GPMConfig  # isort: skip

import re
from dataclasses import dataclass
from functools import partial

import torch
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple, logging

from .cache_gpm import CACHE_NAMES
from .encoding_gpm import encode_group
from .engine_gpm import count_forwards, embed_groups
from .errors_gpm import PromptError, at_prompt
from .heads_gpm import Float32Linear, embeddings_of_heads, scales_of_gate
from .loading_gpm import HEADS, GPMPreTrainedModel
from .long_rope_gpm import turn_rows_apart
from .messages_gpm import as_responses, is_list_of_prompts, listed
from .packing_gpm import pool_packed
from .pipeline_gpm import custom_pipelines
from .pooling_gpm import back_in_place, padding_last, states_at_ends
from .probing_gpm import check_causal
from .remote_backbone_gpm import is_remote, new_backbone
from .rounding_gpm import rounding_bound, within_rounding
from .scores_gpm import mean_scores, preference_matrix, rank_responses

logger = logging.get_logger(__name__)


def _has_shape(value, shape):
    return isinstance(value, torch.Tensor) and value.shape == shape


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


class GPMForPreference(GPMPreTrainedModel):
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

    def __init__(self, config, backbone=None, heads_follow=False):
        super().__init__(config)
        # Here, so that whatever saves the model writes it; being imported above, the pipeline's file is saved as well.
        config.custom_pipelines = custom_pipelines()
        hidden_size = config.text_config.hidden_size
        if backbone is None:
            # Without a dtype the backbone would keep the one that its own configuration remembers.
            backbone = new_backbone(config.text_config, torch.get_default_dtype())
        # Of custom code transformers leaves out the initialisation of modules that only hold others, and with it of
        # what these fill in them (Falcon-H1's multipliers, which are in no checkpoint). Ours is custom, but the
        # backbone's is not.
        self.is_custom_code = partial(is_remote, config.text_config)
        self.model = backbone
        # Who shares a model among processes wraps its backbone, and hides what it takes.
        self.backbone_class = type(backbone)
        # What the backbone said to the questions of `probing_gpm.py`.
        self.answers = {}
        turn_rows_apart(backbone, config.text_config)
        self.embedding_head = Float32Linear(hidden_size, config.embedding_dim)
        self.gate_head = Float32Linear(hidden_size, config.embedding_dim // 2) if config.scale_gate else None
        self.reward_head = Float32Linear(hidden_size, 1) if config.reward_head else None
        self.post_init()
        if heads_follow:
            # No alarm about heads that the checkpoint lacks: an adapter brings them.
            self._keys_to_ignore_on_load_missing |= {f"^{re.escape(name)}" for name in HEADS}
        # Where padding and EOS share an id, `padding_idx` would silence the gradient of the EOS embedding. Padded
        # positions are masked here, so nothing needs it.
        self.get_input_embeddings().padding_idx = None

    def _init_weights(self, module):
        super()._init_weights(module)
        if module is self.gate_head or module is self.reward_head:
            # Equal scales and equal rewards to start with. States are large and alike, so a random gate would begin
            # saturated and silence blocks before they have learnt anything, and random rewards would drown them.
            init.zeros_(module.weight)

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
                a prompt of `prompt_lengths` tokens, then K responses of these numbers of tokens, 0 where a prompt has
                fewer responses (whose rows in the output mean nothing). The output has batch_size * K rows, those of
                the first prompt's responses first. Which backbones can do so
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
                response_states, pooled = pool_packed(
                    self, input_ids, attention_mask, prompt_lengths, response_lengths, **kwargs
                )
            prompt_states = pooled if prompt_states is None else prompt_states

        rewards = self.reward_head(response_states) if self.config.reward_head else None
        embeddings = embeddings_of_heads(self.config, self.embedding_head(response_states), rewards)
        scales = None
        if self.config.scale_gate:
            if prompt_states is None:
                raise ValueError(
                    "This model has a scale gate, which reads the prompt's last token: pass `prompt_lengths`, the "
                    "number of prompt tokens of each sequence."
                )
            scales = scales_of_gate(self.config, self.gate_head(prompt_states))
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
        has_cache, columns = any(name in kwargs for name in CACHE_NAMES), None
        check_causal(self)
        if attention_mask is None:
            if has_cache:
                raise ValueError("With a cache give the `attention_mask`, over the tokens in the cache too.")
            attention_mask = torch.ones_like(input_ids)
        elif not has_cache and attention_mask.shape == input_ids.shape:
            # A backbone may count left padding as tokens, in a window, a running state or a chunk of positions. What
            # comes after its tokens none of a causal one can see.
            columns = padding_last(attention_mask)
            tokens = {name: value for name, value in kwargs.items() if _has_shape(value, input_ids.shape)}
            kwargs |= {name: value.gather(1, columns) for name, value in tokens.items()}
            input_ids, attention_mask = input_ids.gather(1, columns), attention_mask.gather(1, columns)
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
        output = self.model(input_ids, attention_mask=attention_mask, position_ids=position_ids, **kwargs)
        if columns is not None:
            back_in_place(output, columns)
        return output, count

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

    def embed_groups(self, groups, batch_size=16, max_batch_tokens=None, least_forwards=0):
        """
        Embeds many groups at once, see [`~GPMForPreference.embed`]. Where a group's prompt is a good part of its
        tokens, it is encoded once for all its responses, with the keys and values of the prompt in a cache.

        Args:
            groups (`list[EncodedGroup]`): what `encode_group` returns.
            batch_size (`int`, defaults to 16): sequences encoded at once, across groups.
            max_batch_tokens (`int`, *optional*): in place of `batch_size`: as many sequences at once as have together
                at most so many tokens, padding included; a longer one goes alone. None is padded to more than twice
                its length. The result depends on both by rounding alone.
            least_forwards (`int`, defaults to 0): passes through the backbone to make at least, empty ones at the end.
                The processes that share a backbone must all make as many.

        Returns:
            `list[tuple]`: embeddings and scales of each group.
        """
        return embed_groups(self, groups, batch_size, max_batch_tokens, least_forwards)

    def count_forwards(self, groups, batch_size=16, max_batch_tokens=None):
        """The number of passes through the backbone (`int`) that [`~GPMForPreference.embed_groups`] makes of these."""
        return count_forwards(self, groups, batch_size, max_batch_tokens)

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

        Raises:
            ValueError: as [`~GPMForPreference.embed`]; of several prompts a [`PromptError`], which has the number.
        """
        prompt = listed(prompt)
        if not is_list_of_prompts(prompt):
            try:
                return self.preference_scores(tokenizer, [prompt], [responses], batch_size, max_batch_tokens)[0]
            except PromptError as error:
                raise ValueError(error.reason) from error
        responses = listed(responses)
        if len(prompt) != len(responses):
            raise ValueError(f"{len(prompt)} prompts need as many lists of responses, got {len(responses)}.")
        groups, matrices = [], []
        for number, (one_prompt, its_responses) in enumerate(zip(prompt, responses)):
            with at_prompt(number):
                groups.append(encode_group(tokenizer, one_prompt, its_responses, **self.config.encoding_options))
        for number, (embeddings, scales) in enumerate(self.embed_groups(groups, batch_size, max_batch_tokens)):
            with at_prompt(number):
                matrices.append(preference_matrix(embeddings, scales, self.config.tau))
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

    def heads(self):
        """The modules on top of the backbone, by name: the embedding head and, where there are, gate and reward."""
        heads = {"embedding_head": self.embedding_head, "gate_head": self.gate_head, "reward_head": self.reward_head}
        return {name: head for name, head in heads.items() if head is not None}
