"""What a policy answered to one prompt: the texts, and the tokens that they were sampled as."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class SampledGroup:
    """
    K answers to one prompt. The attributes are columns of a row of samples, see [`gpm_hf.data.sampled_ids`].

    Attributes:
        responses: K texts, see [`response_text`]; one may be empty.
        prompt_ids: the token ids that were put to the policy.
        response_ids: K lists of ids as they were sampled, with the token that ended the answer where one did.
        policy_log_probs: K natural logarithms of the policy's probability of these ids, at temperature 1 and among all
            tokens, whatever the samples were drawn by.
        tokenizer_digest: whose ids they are, see [`~gpm_hf.data.sampled_ids.tokenizer_digest`].
    """

    responses: list[str]
    prompt_ids: list[int]
    response_ids: list[list[int]]
    policy_log_probs: list[float]
    tokenizer_digest: str

    def columns(self) -> dict[str, Any]:
        """For a row."""
        return asdict(self)


def response_text(tokenizer: Any, prompt_ids: list[int], ids: list[int], stop_ids: list[int]) -> str:
    """
    What an answer says, which is what a preference is about: its tokens without the one that ended it.

    Special tokens inside an answer (channels, the beginning of a tool call) are kept as they are written: left out,
    they would glue together what they part. A tokenizer that carries a parser (`tokenizer.response_template`; TRL's
    `add_response_schema` sets those of well-known templates) reads the answer: then the text is what it calls the
    content, without the reasoning, and empty where the answer was cut before there was any. Tool calls are kept as
    they were written, and so is what the parser cannot read.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): the policy's.
        prompt_ids: what the answer follows: templates write the beginning of some answers into the prompt.
        ids: as sampled.
        stop_ids: ids that end an answer.
    """
    ended = ids[-1] in stop_ids
    written = tokenizer.decode(ids[:-1] if ended else ids, clean_up_tokenization_spaces=False)
    if tokenizer.response_template is None:
        return written
    try:
        message = tokenizer.parse_response(ids, prefix=prompt_ids)
    except (ValueError, TypeError):
        return written
    content = message.get("content") or ""
    return written if message.get("tool_calls") or not isinstance(content, str) else content
