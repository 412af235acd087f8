"""
Many groups through the backbone: what is encoded at once, and what once for all.

Where a group's prompt is a good part of its tokens, it is encoded once for all its responses, with the keys and values
of the prompt in a cache. Everything else is sequences, which are batched by length across groups.
"""

import copy
from functools import partial

import torch
from transformers import DynamicCache

from .cache_gpm import PromptCache, cache_argument, padded_together
from .encoding_gpm import EncodedGroup, rows_of_groups
from .errors_gpm import PromptError
from .evaluation_gpm import evaluation_mode
from .long_rope_gpm import long_rope_from
from .pooling_gpm import input_device
from .probing_gpm import answer, by_road

# A pass over fewer tokens takes as long as one over so many (of a small model on a CPU).
PASS_TOKENS = 64


def embed_groups(model, groups, batch_size, max_batch_tokens, least_forwards=0):
    """Embeddings and scales of each group, see [`GPMForPreference.embed_groups`]."""
    if model.config.scale_gate:
        for group in groups:
            group.check_prompt()
    model.check_context(max((len(ids) for group in groups for ids in group.sequences), default=0))
    model.check_vocabulary(ids for group in groups for ids in (*group.sequences, group.prompt_ids or []))
    shared, single = _by_way(model, groups)
    results = {}
    if shared:
        embedded = _embed_shared(model, [groups[index] for index in shared], batch_size, max_batch_tokens)
        results.update(zip(shared, embedded))
    if single:
        rows, prompt_lengths, gate_rows = rows_of_groups([groups[i] for i in single], model.config.scale_gate)
        embeddings, scales = embed_rows(model, rows, prompt_lengths, batch_size, max_batch_tokens)
        first = 0
        for place, index in enumerate(single):
            last = first + len(groups[index].sequences)
            results[index] = (embeddings[first:last], None if scales is None else scales[gate_rows[place]])
            first = last
    if least_forwards:
        _run_empty(model, least_forwards - count_forwards(model, groups, batch_size, max_batch_tokens))
    everything = [values.flatten() for pair in results.values() for values in pair if values is not None]
    if everything and not bool(torch.cat(everything).isfinite().all()):
        number = min(
            index
            for index, pair in results.items()
            if any(values is not None and not bool(values.isfinite().all()) for values in pair)
        )
        raise PromptError(
            number,
            "the model's embeddings are not finite. Its weights contain NaN or infinity, or its hidden states "
            f"overflow in {model.dtype}: check the checkpoint, or load it in bfloat16 or float32.",
        )
    return [results[index] for index in range(len(groups))]


def count_forwards(model, groups, batch_size, max_batch_tokens):
    """The passes through the backbone that [`embed_groups`] makes, without empty ones."""
    shared, single = _by_way(model, groups)
    batches = _shared_batches([groups[index] for index in shared], batch_size, max_batch_tokens)
    count = sum(1 + len(parts) for *_, parts in batches)
    if single:
        rows, _, _ = rows_of_groups([groups[index] for index in single], model.config.scale_gate)
        count += len(_row_parts(model, rows, batch_size, max_batch_tokens))
    return count


def _by_way(model, groups):
    """Numbers of the groups whose prompts are encoded once, and of those that are encoded row by row."""
    can_share = can_share_prompts(model)
    shared = [index for index, group in enumerate(groups) if can_share and group.prompt_is_worth_sharing]
    return shared, sorted(set(range(len(groups))) - set(shared))


def can_share_prompts(model):
    """Whether a prompt can be read once, and wait in a cache for its responses."""
    return sharing_obstacle(model) is None


def sharing_obstacle(model):
    """
    Why a prompt cannot be read once for all its responses.

    Args:
        model ([`GPMForPreference`]): the model, on any backbone.

    Returns:
        `str` or `None`: a sentence that names the cause; `None` where nothing is in the way. Each sequence is then
        read whole, which gives the same scores for more tokens.
    """
    # This model's own configuration: under ZeRO-3 DeepSpeed hangs its settings on the backbone as `config`.
    config = model.config.text_config
    kind = config.model_type
    if cache_argument(model.backbone_class) is None:
        return f"{kind} takes no cache in which a prompt could wait for its responses."
    # Layers that keep a running state instead cannot be told where a left-padded prompt begins. Where a list names the
    # layers' other parts too, an "mlp" reads each token by itself.
    others = set(config.to_dict().get("layer_types") or []) - {"full_attention", "sliding_attention", "mlp"}
    if model.model._is_stateful or others:
        what = ", ".join(sorted(others)) or "a running state"
        return f"{kind} has layers that remember a prompt otherwise than by keys and values ({what})."
    if long_rope_from(config) is not None:
        return f"{kind} turns the positions of a prompt by other angles where a long response follows (longrope)."
    run = partial(_by_cache, model)
    return answer(model, "sharing", lambda reference: by_road(model, "a prompt in a cache", run, reference))


def _by_cache(model, reference):
    groups = [
        EncodedGroup([prompt + response for response in reference.responses], prompt) for prompt in reference.prompts
    ]
    ((_, prompts, owners, suffixes, parts),) = _shared_batches(groups, len(groups) * len(reference.responses), None)
    outputs, prompt_states = _run_suffixes(model, prompts, owners, suffixes, parts)
    states = torch.cat([output.response_states for output in outputs])
    return states[_inverse_order(parts, states.device)], prompt_states.repeat_interleave(2, dim=0)


@torch.no_grad()
def pool_shared(model, groups, batch_size, after_batch):
    """
    Hidden states that the heads read, each prompt encoded once, and once for all what the prompts begin with, where
    that pays; for backbones of [`can_share_prompts`].

    Args:
        groups (`list[EncodedGroup]`): whose sequences all go on after their prompt; their prompts are encoded at once.
        batch_size (`int`): sequences encoded at once.
        after_batch (callable): takes the number of those that have been.

    Returns:
        `list[tuple]`: of each group the states at its sequences' ends, of shape (K, hidden_size), and at its prompt's
        end, of shape (hidden_size,).
    """
    prompts, owners, suffixes = _after_prompts(groups)
    parts = _parts([len(ids) for ids in suffixes], batch_size)
    beginning = _common_beginning(model, prompts)
    with evaluation_mode(model):
        outputs, prompt_states = _run_suffixes(model, prompts, owners, suffixes, parts, beginning, after_batch)
    states = torch.cat([output.response_states for output in outputs])
    states = states[_inverse_order(parts, states.device)]
    return list(zip(states.split([len(group.sequences) for group in groups]), prompt_states))


def _common_beginning(model, prompts):
    """
    The number of tokens with which all prompts begin, a system message for instance; 0 where to read them once would
    not pay.
    """
    shortest = min(map(len, prompts))
    alike = next((place for place, ids in enumerate(zip(*prompts)) if len(set(ids)) > 1), shortest)
    # Each prompt keeps its last token, whose state is read.
    alike = min(alike, shortest - 1)
    passes = 1 + len(set(map(len, prompts)))
    least = PASS_TOKENS if input_device(model).type == "cpu" else 8 * PASS_TOKENS
    return alike if alike * (len(prompts) - 1) >= least * passes else 0


@torch.no_grad()
def _run_empty(model, count):
    """Passes of one token, which nobody reads."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=input_device(model))
    with evaluation_mode(model):
        for _ in range(count):
            model.pool(ids)


@torch.no_grad()
def _embed_shared(model, groups, batch_size, max_batch_tokens):
    """Embeddings and scales of groups, each prompt encoded once."""
    results = {}
    with evaluation_mode(model):
        for numbers, prompts, owners, suffixes, parts in _shared_batches(groups, batch_size, max_batch_tokens):
            outputs, _ = _run_suffixes(model, prompts, owners, suffixes, parts)
            embeddings, scales = _in_order(model, parts, outputs)
            sizes = [len(groups[index].sequences) for index in numbers]
            gates = [None] * len(sizes) if scales is None else [rows[0] for rows in scales.split(sizes)]
            results.update(zip(numbers, zip(embeddings.split(sizes), gates)))
    return [results[index] for index in range(len(groups))]


def _shared_batches(groups, batch_size, max_batch_tokens):
    """
    Cuts groups into as many at a time as a batch of prompts holds.

    Returns:
        `Iterator[tuple]`: numbers of groups, their prompts' ids, for each suffix the place of its prompt among them,
        the suffixes' ids, and the parts in which suffixes are encoded, see [`_parts`].
    """
    for numbers in _parts(
        [len(group.prompt_ids) for group in groups],
        batch_size,
        max_batch_tokens,
        wholes=[max(map(len, group.sequences)) for group in groups],
        rows=[len(group.sequences) for group in groups],
    ):
        prompts, owners, suffixes = _after_prompts([groups[index] for index in numbers])
        # Beside the longest prompt, to which the others are padded.
        columns = max(map(len, prompts))
        lengths = [len(ids) for ids in suffixes]
        parts = _parts(lengths, batch_size, max_batch_tokens, wholes=[columns + length for length in lengths])
        yield numbers, prompts, owners, suffixes, parts


def _after_prompts(groups):
    """The prompts' ids, of each sequence the place of its prompt among them, and its ids after that."""
    prompts = [group.prompt_ids for group in groups]
    owners = [place for place, group in enumerate(groups) for _ in group.sequences]
    return prompts, owners, [ids[len(group.prompt_ids) :] for group in groups for ids in group.sequences]


def _run_suffixes(model, prompts, owners, suffixes, parts, beginning=0, after_part=lambda rows: None):
    """
    The model's outputs for parts of the suffixes, each of them after its owner, the number of a prompt, and the states
    at the prompts' ends; `beginning` tokens, which all prompts have in common, are read once.
    """
    device = input_device(model)
    name = cache_argument(model.backbone_class)
    # On the left, so that the suffixes follow their prompts without a gap.
    prompt_ids, prompt_mask = _pad(prompts, device, left=True)
    if beginning:
        cache, prompt_states = _after_beginning(model, prompts, beginning)
    else:
        cache = DynamicCache()
        options = {"use_cache": True, name: cache}
        prompt_states = model(prompt_ids, prompt_mask, prompt_mask.sum(-1), **options).prompt_states
    columns = prompt_ids.shape[1]
    if cache.get_seq_length() != columns:
        raise RuntimeError(
            f"The backbone {model.config.text_config.model_type} left {cache.get_seq_length()} of {columns} prompt "
            "tokens in the cache: the responses would be read without their prompt."
        )
    outputs = []
    for part in parts:
        rows = torch.tensor([owners[index] for index in part], device=device)
        ids, mask = _pad([suffixes[index] for index in part], device)
        outputs.append(
            model(
                ids,
                torch.cat([prompt_mask[rows], mask], dim=1),
                prompt_states=prompt_states[rows],
                use_cache=True,
                **{name: PromptCache(cache, rows)},
            )
        )
        after_part(len(part))
    return outputs, prompt_states


def _after_beginning(model, prompts, beginning):
    """
    Keys and values of prompts, padded on the left, and the states at their ends. The beginning is read once for all,
    then prompts of one length at a time, for between a beginning and the rest there may be no padding.
    """
    device = input_device(model)
    name = cache_argument(model.backbone_class)
    first = DynamicCache()
    ids = torch.tensor([prompts[0][:beginning]], device=device)
    model.pool(ids, use_cache=True, **{name: first, "attention_mask": torch.ones_like(ids)})
    by_length = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).append(number)
    caches, states = [], []
    for numbers in by_length.values():
        ids = torch.tensor([prompts[number] for number in numbers], device=device)
        cache = copy.deepcopy(first)
        cache.batch_repeat_interleave(len(numbers))
        options = {"use_cache": True, name: cache}
        states.append(model.pool(ids[:, beginning:], torch.ones_like(ids), **options)[0])
        caches.append(cache)
    inverse = _inverse_order(by_length.values(), device)
    return padded_together(caches, inverse), torch.cat(states)[inverse]


def embed_rows(model, rows, prompt_lengths, batch_size, max_batch_tokens=None):
    """Embeddings and scales of rows of token ids; the other arguments as in the methods that call this."""
    model.check_context(max(len(ids) for ids in rows))
    parts = _row_parts(model, rows, batch_size, max_batch_tokens)
    outputs, device = [], input_device(model)
    with torch.no_grad(), evaluation_mode(model):
        for part in parts:
            ids, mask = _pad([rows[index] for index in part], device)
            gate_reads = None
            if model.config.scale_gate:
                gate_reads = torch.tensor([prompt_lengths[index] for index in part], device=device)
            outputs.append(model(ids, mask, gate_reads))
    return _in_order(model, parts, outputs)


def _row_parts(model, rows, batch_size, max_batch_tokens):
    return _parts([len(ids) for ids in rows], batch_size, max_batch_tokens)


def _in_order(model, parts, outputs):
    """Embeddings and scales of sequences in their own order, from what the model gave for the parts."""
    inverse = _inverse_order(parts, outputs[0].embeddings.device)
    embeddings = torch.cat([output.embeddings for output in outputs])[inverse]
    scales = torch.cat([output.scales for output in outputs])[inverse] if model.config.scale_gate else None
    return embeddings, scales


def _inverse_order(parts, device):
    """Where each sequence is among those of all parts."""
    return torch.tensor([index for part in parts for index in part], device=device).argsort()


def _parts(lengths, batch_size, max_batch_tokens=None, wholes=None, rows=None):
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

    Returns:
        `list[list[int]]`: numbers.
    """
    if (batch_size if max_batch_tokens is None else max_batch_tokens) < 1:
        raise ValueError(f"batch_size and max_batch_tokens must be at least 1, got {batch_size}, {max_batch_tokens}.")
    if not lengths:
        return []
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
            if is_full:
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
