"""The forms of requests. What is not as it should be is answered by 422 and the place of the fault."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, field_validator

Text = Annotated[StrictStr, Field(min_length=1)]
Tokens = Annotated[list[StrictInt], Field(min_length=1)]
Messages = Annotated[list[dict[str, Any]], Field(min_length=1)]


class HeadsRequest(BaseModel):
    """`/pooling` and `/v1/embeddings`, as vLLM and OpenAI have them, of token ids."""

    input: Annotated[list[StrictInt] | list[Tokens], Field(min_length=1)]
    model: StrictStr | None = None
    encoding_format: Literal["float"] = "float"
    use_activation: StrictBool | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _no_text(cls, value: Any) -> Any:
        if isinstance(value, str) or (isinstance(value, list) and any(isinstance(one, str) for one in value)):
            raise ValueError("send token ids: how a text is rendered is the client's business. /score takes texts")
        return value

    @field_validator("use_activation")
    @classmethod
    def _raw(cls, value: bool | None) -> bool | None:
        if value:
            raise ValueError("must be false: the norm of the whole vector would change the log-odds")
        return value

    @property
    def rows(self) -> list[list[int]]:
        return [self.input] if isinstance(self.input[0], int) else self.input  # type: ignore[list-item, return-value]


class Group(BaseModel):
    """A prompt with its responses, in any form that [`~gpm_hf.modeling.read_group`] knows."""

    model_config = ConfigDict(extra="forbid")

    prompt: Text | Messages | None = None
    responses: Annotated[list[Text | Messages], Field(min_length=1)]


class ScoreRequest(BaseModel):
    """`/score`."""

    model_config = ConfigDict(extra="forbid")

    groups: Annotated[list[Group], Field(min_length=1)]


class Label(BaseModel):
    """What OpenRLHF sends of a row's label, where it is ours: a JSON object, or one in a string."""

    reference_responses: Annotated[list[Text], Field(min_length=1)] | None = None
    messages: Messages | None = None


class RewardRequest(BaseModel):
    """`/get_reward`, as OpenRLHF's trainers send it."""

    query: Annotated[list[StrictStr], Field(min_length=1)]
    prompts: Annotated[list[Text], Field(min_length=1)]
    labels: list[Any] | None = None

    def label_of(self, number: int) -> Label:
        """Of a row; an empty one where its label is something else, such as an answer's text."""
        label = self.labels[number] if self.labels else None
        if isinstance(label, str) and label.lstrip().startswith("{"):
            try:
                label = json.loads(label)
            except ValueError:
                return Label()
        if not isinstance(label, dict) or not label.keys() & Label.model_fields.keys():
            return Label()
        return Label.model_validate(label)
