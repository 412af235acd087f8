"""Errors that say what they are about as data, not in their text alone."""

from contextlib import contextmanager


class EmptyResponseError(ValueError):
    """
    A response without text: there is nothing to prefer.

    Attributes:
        index (`int`): its number in the group.
    """

    def __init__(self, index, message):
        super().__init__(index, message)
        self.index = index

    def __str__(self):
        return self.args[1]


class PromptError(ValueError):
    """
    One of several prompts, with its responses, that cannot be scored. Who knows where the prompts are from names it by
    its number, and says the reason.

    Attributes:
        number (`int`): of the prompt among those of the call, the first being 0.
        reason (`str`): what is wrong.
    """

    def __init__(self, number, reason):
        super().__init__(number, reason)
        self.number = number
        self.reason = reason

    def __str__(self):
        return f"Prompt {self.number}: {self.reason}"


@contextmanager
def at_prompt(number):
    """Whatever `ValueError` comes from the block is a [`PromptError`] about the prompt of this number."""
    try:
        yield
    except ValueError as error:
        # What was called for this prompt alone counted it as its first.
        reason = error.reason if isinstance(error, PromptError) else str(error)
        raise PromptError(number, reason) from error
