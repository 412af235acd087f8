"""Answers of which only the text is known: does a chat template render them as a policy would have sampled them?"""

from typing import Any


def rendering_fault(tokenizer: Any, prompt: list[dict[str, Any]], answer: str, **options: Any) -> str | None:
    """
    Why the rendering of an answer is not the prompt as it is put to a policy, then the answer (white space at its ends
    aside), then its end. Templates drop reasoning, put an empty think block or a channel in front, or render a prompt
    differently when an answer follows; what such a text was sampled as, nobody can tell.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the policy's, with a chat template.
        prompt: chat messages.
        answer: the assistant's text.
        options: of the template (`tools`, `enable_thinking`, ...).

    Returns:
        A half sentence, or `None` where the rendering is whole.
    """
    conversation = [*prompt, {"role": "assistant", "content": answer}]
    before = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **options)
    whole = tokenizer.apply_chat_template(conversation, tokenize=False, **options)
    if not whole.startswith(before):
        return "the chat template renders the prompt differently when a response follows"
    written, text = whole[len(before) :].strip(), answer.strip()
    if not written.startswith(text):
        return f"the chat template writes {_beginning(written)} after the prompt where {_beginning(text)} was given"
    return None


def _beginning(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
