"""Log-probabilities of a policy's own responses."""

from collections.abc import Sequence
from typing import Any

import torch

from gpm_hf.data.rendered_answers import rendering_fault
from gpm_hf.modeling import encode_group, input_device

from .prompts import prompt_messages


def response_log_probs(
    model: Any, tokenizer: Any, prompts: list, groups: list[list[str]], batch_size: int = 8
) -> list[list[float]]:
    """
    The policy's log-probability of each response, at temperature 1, as training reads it where only the text is known:
    of all tokens of the response as the chat template renders it, its end-of-turn tokens included. Of samples whose
    ids were kept see [`token_log_probs`].

    Args:
        model (`PreTrainedModel`): the policy.
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        prompts: N prompts, strings or chat messages.
        groups: for each its responses, none of them empty.
        batch_size: sequences at once.

    Returns:
        For each group natural logarithms.

    Raises:
        ValueError: a response that is not rendered as prompt, answer and end, by the numbers of prompt and response.
    """
    prompt_ids, response_ids = [], []
    for number, (prompt, responses) in enumerate(zip(prompts, groups)):
        encoded = encode_group(tokenizer, prompt, responses, template_date=None)
        assert encoded.prompt_ids is not None
        faults = [rendering_fault(tokenizer, prompt_messages(prompt), response) for response in responses]
        if not encoded.prompt_is_inside:
            faults = [fault or "the prompt and the response share a token" for fault in faults]
        for place, fault in enumerate(faults):
            if fault:
                raise ValueError(
                    f"Prompt {number}, response {place}: {fault}, so these tokens are not what a policy sampled. Give "
                    "the ids that were sampled to `token_log_probs`."
                )
        prompt_ids.append(encoded.prompt_ids)
        response_ids.append([ids[len(encoded.prompt_ids) :] for ids in encoded.sequences])
    return token_log_probs(model, prompt_ids, response_ids, batch_size)


@torch.no_grad()
def token_log_probs(
    model: Any, prompt_ids: Sequence[list[int]], response_ids: Sequence[list[list[int]]], batch_size: int = 8
) -> list[list[float]]:
    """
    The policy's log-probability, at temperature 1, of sampled responses: of exactly these ids.

    Args:
        model (`PreTrainedModel`): the policy.
        prompt_ids: N prompts, see [`gpm_hf.data.sampled_ids`].
        response_ids: for each the ids of its responses.
        batch_size: sequences at once.

    Returns:
        For each group natural logarithms.
    """
    sequences = [(before + ids, len(before)) for before, group in zip(prompt_ids, response_ids) for ids in group]
    order = sorted(range(len(sequences)), key=lambda index: -len(sequences[index][0]))
    found, device = [0.0] * len(sequences), input_device(model)
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        width = max(len(sequences[index][0]) for index in batch)
        input_ids = torch.zeros((len(batch), width), dtype=torch.long)
        mask, response = torch.zeros_like(input_ids), torch.zeros_like(input_ids)
        for row, index in enumerate(batch):
            ids, prompt_length = sequences[index]
            input_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
            response[row, prompt_length : len(ids)] = 1
        input_ids = input_ids.to(device)
        logits = model(input_ids=input_ids, attention_mask=mask.to(device), use_cache=False).logits[:, :-1]
        log_probs = logits.float().log_softmax(-1).gather(-1, input_ids[:, 1:, None].to(logits.device)).squeeze(-1)
        for index, value in zip(batch, (log_probs * response[:, 1:].to(log_probs.device)).sum(1).tolist()):
            found[index] = value
    iterator = iter(found)
    return [[next(iterator) for _ in group] for group in response_ids]
