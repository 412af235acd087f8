"""Where a preference model's tokens go, and of which tokens its heads read the states."""

import torch


def states_at_ends(states, count, prompt_lengths):
    """
    Args:
        states (`torch.FloatTensor` of shape `(rows, length, hidden_size)`): the backbone's last hidden states.
        count (`torch.LongTensor` of shape `(rows, length)`): the number of tokens up to each column, padding left out.
        prompt_lengths (`torch.LongTensor` of shape `(rows,)`, *optional*): the number of tokens of each prompt.

    Returns:
        `tuple`: states of shape (rows, hidden_size) at each sequence's last token, and at its prompt's or `None`.

    Raises:
        ValueError: for prompts of less than one token, or of more than their sequences have.
    """

    def state_of(number):
        # The n-th token is where the running count of tokens first reaches n, whatever the padding side.
        column = (count == number).to(torch.int32).argmax(-1, keepdim=True)
        # Not by the numbers of the rows: an exported model would keep this batch's.
        column = column[:, :, None].expand(-1, -1, states.shape[-1])
        return states.gather(1, column.to(states.device))[:, 0]

    lengths = count[:, -1:]
    response_states = state_of(lengths)
    if prompt_lengths is None:
        return response_states, None
    prompt_lengths = prompt_lengths[:, None].to(count.device)
    valid = (prompt_lengths >= 1) & (prompt_lengths <= lengths)
    prompt_states = state_of(prompt_lengths)
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return response_states, prompt_states.where(valid.to(states.device), torch.nan)
    if not bool(valid.all()):
        raise ValueError(
            f"prompt_lengths {prompt_lengths[:, 0].tolist()} must lie between 1 and the sequences' numbers of tokens, "
            f"{lengths[:, 0].tolist()}."
        )
    return response_states, prompt_states


def padding_last(attention_mask):
    """
    For each row the columns of its tokens, then those of its padding.

    Args:
        attention_mask (`torch.LongTensor` of shape `(rows, length)`): 1 where there is a token.

    Returns:
        `torch.LongTensor` of the same shape.
    """
    return attention_mask.long().argsort(dim=-1, descending=True, stable=True)


def back_in_place(output, columns):
    """Puts a backbone's states and attention maps of all layers back where the rows' tokens were given."""
    places = columns.argsort(dim=-1)

    def ordered(values, dim):
        index = places.to(values.device)[(..., *[None] * (values.ndim - dim - 1))]
        index = index.view(len(index), *[1] * (dim - 1), *index.shape[1:])
        return values.gather(dim, index.expand(*values.shape[:dim], -1, *values.shape[dim + 1 :]))

    if output.get("hidden_states") is not None:
        output["hidden_states"] = tuple(ordered(states, 1) for states in output["hidden_states"])
    if output.get("attentions") is not None:
        output["attentions"] = tuple(
            one if one is None else ordered(ordered(one, 2), 3) for one in output["attentions"]
        )


def input_device(model):
    """The device that token ids go to: the model's or, where the weights are offloaded, that of the computation."""
    if model.device.type != "meta":
        return model.device
    # accelerate's hook brings the weights as they are needed.
    return torch.device(model.get_input_embeddings()._hf_hook.execution_device)
