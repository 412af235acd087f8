"""Log-probabilities of sampled responses, read off a policy's own forward."""

from collections.abc import Sequence
from typing import Any

import torch

from gpm_hf.modeling import input_device


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
