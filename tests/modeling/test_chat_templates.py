"""
What real chat templates make of the shapes in which preference data comes, compared with renderings written by hand:
the same tokens on every road, or a sentence where a template leaves out what was given.
"""

import pytest

from gpm_hf.data.preference import encode_preference
from gpm_hf.modeling import encode_group
from tests.modeling.chat_templates import Refused, names, render, tokenizer_for

QUESTION = "What is rye?"


def user(text, role="user"):
    return {"role": role, "content": text}


def assistant(text, role="assistant", **more):
    return {"role": role, "content": text, **more}


def call(name):
    return {"type": "function", "function": {"name": name, "arguments": {"city": "Oslo"}}}


def parts(text):
    return [{"type": "text", "text": text}]


SYSTEM = {"role": "system", "content": "Be kind."}
CEREAL, COLOUR = "A cereal.", "A colour, as one says."
PLAIN = ([user(QUESTION)], [assistant(CEREAL)], [assistant(COLOUR)])
EARLIER = [user("Hello there."), assistant("Good day."), user(QUESTION)]

# name: prompt, chosen, rejected as they come, and the messages that they mean (`None`: refused whatever the template).
SHAPES = {
    "strings": ((QUESTION, CEREAL, COLOUR), PLAIN),
    "messages": (PLAIN, PLAIN),
    "several turns": ((EARLIER, CEREAL, COLOUR), (EARLIER, *PLAIN[1:])),
    "system message": (([SYSTEM, user(QUESTION)], CEREAL, COLOUR), ([SYSTEM, user(QUESTION)], *PLAIN[1:])),
    "reply in parts": ((QUESTION, [assistant(parts(CEREAL))], [assistant(parts(COLOUR))]), PLAIN),
    "all in parts": (
        (
            [user(parts(QUESTION))],
            [assistant(parts(CEREAL))],
            [assistant([*parts("A colour, "), *parts("as one says.")])],
        ),
        PLAIN,
    ),
    "ShareGPT": (
        (
            [{"from": "human", "value": QUESTION}],
            [{"from": "gpt", "value": CEREAL}],
            [{"from": "gpt", "value": COLOUR}],
        ),
        PLAIN,
    ),
    "single message": ((user(QUESTION), assistant(CEREAL), assistant(COLOUR)), PLAIN),
    "empty tool calls": (
        (QUESTION, [assistant(CEREAL, tool_calls=[])], [assistant(COLOUR, tool_calls=[])]),
        PLAIN,
    ),
    "nulls of a table": (
        (
            [user(QUESTION) | {"name": None, "tool_calls": None}],
            [assistant(CEREAL, tool_calls=None, reasoning_content=None)],
            [assistant(COLOUR, tool_calls=None, thinking=None)],
        ),
        PLAIN,
    ),
    "whole conversations beside a string": (
        (QUESTION, [user(QUESTION), assistant(CEREAL)], [user(QUESTION), assistant(COLOUR)]),
        PLAIN,
    ),
    "whole conversations beside messages": (
        (EARLIER, [*EARLIER, assistant(CEREAL)], [*EARLIER, assistant(COLOUR)]),
        (EARLIER, *PLAIN[1:]),
    ),
    "whole conversations with a system message": (
        (QUESTION, [SYSTEM, user(QUESTION), assistant(CEREAL)], [SYSTEM, user(QUESTION), assistant(COLOUR)]),
        ([SYSTEM, user(QUESTION)], *PLAIN[1:]),
    ),
    "conversations without prompt": (
        (None, [*EARLIER, assistant(CEREAL)], [*EARLIER, assistant(COLOUR)]),
        (EARLIER, *PLAIN[1:]),
    ),
    "conversations about something else": (
        (QUESTION, [user("What is dew?"), assistant(CEREAL)], [user("What is dew?"), assistant(COLOUR)]),
        None,
    ),
    "conversations without a reply": ((QUESTION, [user(QUESTION)], [user(QUESTION), assistant(COLOUR)]), None),
    "only a system message shared": (
        (None, [SYSTEM, user(QUESTION), assistant(CEREAL)], [SYSTEM, user("What is dew?"), assistant(COLOUR)]),
        None,
    ),
    "questions that differ in a space": (
        (None, [user(QUESTION), assistant(CEREAL)], [user(QUESTION + " "), assistant(COLOUR)]),
        None,
    ),
    "role gpt": ((QUESTION, [assistant(CEREAL, "gpt")], [assistant(COLOUR, "gpt")]), "as it is"),
    "role Assistant": ((QUESTION, [assistant(CEREAL, "Assistant")], [assistant(COLOUR, "Assistant")]), "as it is"),
    "role model": ((QUESTION, [assistant(CEREAL, "model")], [assistant(COLOUR, "model")]), "as it is"),
    "role human": (([user(QUESTION, "human")], CEREAL, COLOUR), "as it is"),
    "tool calls": (
        (QUESTION, [assistant("", tool_calls=[call("weather")])], [assistant("", tool_calls=[call("map")])]),
        "as it is",
    ),
    "a tool call and a text": ((QUESTION, [assistant("", tool_calls=[call("weather")])], CEREAL), "as it is"),
    "reasoning alone differs": ((QUESTION, f"<think>first</think>{CEREAL}", f"<think>no</think>{CEREAL}"), "think"),
    "reasoning alone": ((QUESTION, "<think>cereals</think>", "<think>colours</think>"), "think"),
    "reasoning before different replies": (
        (QUESTION, f"<think>first</think>{CEREAL}", f"<think>no</think>{COLOUR}"),
        "think",
    ),
    "reasoning_content": (
        (QUESTION, [assistant(CEREAL, reasoning_content="first")], [assistant(CEREAL, reasoning_content="second")]),
        "as it is",
    ),
    "thinking": (
        (QUESTION, [assistant(CEREAL, thinking="first")], [assistant(CEREAL, thinking="second")]),
        "as it is",
    ),
    "white space alone differs": ((QUESTION, CEREAL, f" {CEREAL} \n"), "as it is"),
}


def expected(name, shape):
    """Ids of chosen, rejected and prompt by hand, or `None` where the row must be refused."""
    given, meant = SHAPES[shape]
    if meant is None:
        return None
    if isinstance(meant, str):
        prompt, *replies = given
        prompt = [user(prompt)] if isinstance(prompt, str) else prompt
        meant = (prompt, *([assistant(reply)] if isinstance(reply, str) else reply for reply in replies))
    prompt, *replies = meant
    try:
        texts = [render(name, prompt + reply) for reply in replies]
        texts.append(render(name, prompt, open_reply=True))
    except Refused:
        return None
    if texts[0] == texts[1] and shape != "white space alone differs":
        return None
    tokenizer = tokenizer_for(name)
    chosen, rejected, prompt_ids = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    return {"chosen_ids": chosen, "rejected_ids": rejected, "prompt_ids": prompt_ids}


def scored(row, tokenizer):
    group = encode_group(tokenizer, row["prompt"], [row["chosen"], row["rejected"]])
    group.check_prompt()
    return {"chosen_ids": group.sequences[0], "rejected_ids": group.sequences[1], "prompt_ids": group.prompt_ids}


def trained(row, tokenizer):
    """From a table, which fills rows up with nulls; another row makes it do so."""
    from datasets import Dataset

    other = {"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]}
    return encode_preference(Dataset.from_list([row, other])[0], tokenizer)


def streamed(row, tokenizer):
    from datasets import IterableDataset

    stream = IterableDataset.from_generator(lambda: iter([row]))
    columns = ["prompt", "chosen", "rejected"]
    (encoded,) = stream.map(encode_preference, fn_kwargs={"tokenizer": tokenizer}, remove_columns=columns)
    return {name: encoded[name] for name in ("chosen_ids", "rejected_ids", "prompt_ids")}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", names())
def test_every_road_gives_the_ids_written_by_hand_or_refuses(name, shape):
    right = expected(name, shape)
    row = dict(zip(("prompt", "chosen", "rejected"), SHAPES[shape][0], strict=True))
    tokenizer = tokenizer_for(name)
    for road in (scored, trained, streamed):
        if road is trained and isinstance(row["chosen"], str) != isinstance(row["rejected"], str):
            continue  # no table can hold the two in one kind of column, and these are columns of one
        if right is not None:
            assert road(row, tokenizer) == right, road.__name__
        else:
            with pytest.raises(ValueError) as caught:
                road(row, tokenizer)
            assert str(caught.value).count("\n") == 0
