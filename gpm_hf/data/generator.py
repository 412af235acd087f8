"""
Preference cycles made of plain English, for training and testing without downloads.

Each response to a prompt carries one of several attributes (it tells an example, gives a reason, ...), and the
attributes beat each other in a ring, the same one for every prompt and topic. A model that generalises to unseen
topics has learnt the attributes; a scalar reward can satisfy at most n - 1 of a ring's n edges. The same texts, ranked
instead of ringed, are the control: there a scalar reward is enough. With a dominant response, which beats all of the
ring, the preferences are a ranking and a cycle at once: one two-dimensional block is not enough either.

The texts are in `generator_texts.py`; standard library only.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

from .generator_texts import (
    ATTRIBUTE_TIP_SENTENCES,
    ATTRIBUTES,
    DO_QUESTIONS,
    DOING_QUESTIONS,
    NUMBERS,
    PEOPLE,
    TIMES,
    TIP_SENTENCES,
    TOPICS,
)

# In the other responses a neutral sentence carries the tip, and the attribute shows in the second sentence only.
_ATTRIBUTE_TIP_SHARE = 0.75


def generate_rings(
    num_prompts: int,
    ring_size: int = 3,
    seed: int = 0,
    transitive_share: float = 0.0,
    topics: Iterable[str] | None = None,
    dominant: bool = False,
) -> list[dict[str, Any]]:
    """
    Generates prompts with `ring_size` responses each (one more where one is dominant), one per attribute.

    Attribute 1 beats attribute 2, which beats attribute 3, and so on; the last beats the first. Topics appear equally
    often (as far as the number of prompts allows).

    Args:
        num_prompts (`int`): number of rows; all prompts are distinct.
        ring_size (`int`, defaults to 3): number n of attributes and of responses per prompt, 3 to 5.
        seed (`int`, defaults to 0): the rows are a function of the arguments.
        transitive_share (`float`, defaults to 0.0): the share of the prompts, rounded to whole ones, whose preferences
            are a ranking instead of a ring: attribute 1 beats all others, attribute 2 all but the first, and so on.
            Nothing in the texts tells which these are. 1.0 is the control: the same prompts and responses, ranked.
        topics (iterable of `str`, *optional*): the topics to draw from, see [`split_topics`]. Default: all.
        dominant (`bool`, defaults to `False`): one response more, of attribute n + 1, which beats all others.

    Returns:
        `list[dict]`: rows with `prompt` (`str`), `topic` (`str`), `responses` (`list[str]` of length n) and
        `attributes` (`list[str]` of length n, the name of each response's attribute) and `transitive` (`bool`). Ring:
        `responses[i]` is preferred to `responses[i + 1]` and the last to the first, starting at a random attribute.
        Transitive: `responses[i]` is preferred to `responses[j]` for all i < j. With `dominant` the rows also have
        `dominant` (`True`), and the dominant response stands before these n. Each row says the same by `ring`,
        `ranking` or `preferences`, as groups to be trained on do.

    Raises:
        ValueError: a ring size or a share that makes no sense, unknown topics, or more prompts than can be told apart.
    """
    largest = len(ATTRIBUTES) - dominant
    if not 3 <= ring_size <= largest:
        beside = " beside a dominant response" if dominant else ""
        raise ValueError(f"`ring_size` must be between 3 and {largest}{beside}, got {ring_size}.")
    names = list(TOPICS) if topics is None else list(dict.fromkeys(topics))
    unknown = [name for name in names if name not in TOPICS]
    if unknown or not names:
        raise ValueError(f"`topics` must name at least one topic and only known ones; unknown: {unknown}.")
    if not 0.0 <= transitive_share <= 1.0:
        raise ValueError(f"`transitive_share` is a share between 0 and 1, got {transitive_share}.")
    rng = random.Random(seed)
    questions = {name: _questions(name) for name in names}
    maximum = sum(len(own) for own in questions.values())
    if not 1 <= num_prompts <= maximum:
        raise ValueError(
            f"`num_prompts` must be between 1 and {maximum}, the number of distinct prompts that {len(names)} "
            f"topic(s) can give; got {num_prompts}."
        )

    for own in questions.values():
        rng.shuffle(own)
    attributes = list(ATTRIBUTES)[: ring_size + dominant]
    ranked = set(random.Random(seed).sample(range(num_prompts), round(transitive_share * num_prompts)))
    rows: list[dict[str, Any]] = []
    while len(rows) < num_prompts:
        # One round takes one question of every topic.
        for name in rng.sample(names, len(names))[: num_prompts - len(rows)]:
            prompt, variant = questions[name].pop()
            responses = _responses(rng, name, variant, attributes)
            # Drawn for rankings too, so that both kinds of rows consume the same random numbers.
            start = rng.randrange(ring_size)
            transitive = len(rows) in ranked
            order = list(range(ring_size)) if transitive else [(start + i) % ring_size for i in range(ring_size)]
            if dominant:
                order.insert(0, ring_size)
            rows.append(
                {
                    "prompt": prompt,
                    "topic": name,
                    "responses": [responses[i] for i in order],
                    "attributes": [attributes[i] for i in order],
                    "transitive": transitive,
                    **_statement(ring_size, transitive, dominant),
                }
            )
    return rows


def _statement(size: int, transitive: bool, dominant: bool) -> dict[str, Any]:
    """Who beats whom, as groups say it (see `judged_groups.py`)."""
    if transitive:
        return {"ranking": list(range(size + dominant)), **({"dominant": True} if dominant else {})}
    if not dominant:
        return {"ring": True}
    edges = [[0, other] for other in range(1, size + 1)]
    edges += [[1 + place, 1 + (place + 1) % size] for place in range(size)]
    return {"preferences": edges, "dominant": True}


def ring_pairs(
    rows: Sequence[dict[str, Any]],
    label_noise: float = 0.0,
    seed: int = 0,
    equal_size: bool = False,
) -> list[dict[str, Any]]:
    """
    Turns rows of [`generate_rings`] into preference pairs, one per edge.

    Args:
        rows (sequence of `dict`): rows with n responses each, rings and rankings, or n + 1 with a dominant one.
        label_noise (`float`, defaults to 0.0): the share of all edges, rounded to whole ones, whose chosen and
            rejected responses are swapped; the edges are drawn by `seed`.
        seed (`int`, defaults to 0): see `label_noise`.
        equal_size (`bool`, defaults to `False`): for rankings, n pairs per row as a ring has, instead of all
            n(n-1)/2: every neighbouring pair, and first over last. No difference at n = 3, none for rings. A dominant
            response always adds n pairs.

    Returns:
        `list[dict]`: `prompt`, `chosen`, `rejected`, `topic` (all `str`), `cycle_id` (`int`, the row; `None` for the
        pairs of a dominant response, which are in no cycle) and `edge` (`int`, the number of the edge within the row,
        those of a dominant response last).

    Raises:
        ValueError: a share outside 0 to 1.
    """
    if not 0.0 <= label_noise <= 1.0:
        raise ValueError(f"`label_noise` is a share between 0 and 1, got {label_noise}.")
    pairs = []
    for cycle_id, row in enumerate(rows):
        # Rows without a dominant response do not mention it.
        dominant = row.get("dominant", False)
        responses = row["responses"][1:] if dominant else row["responses"]
        size = len(responses)
        if not row["transitive"]:
            edges = [(i, (i + 1) % size) for i in range(size)]
        elif equal_size:
            edges = [*((i, i + 1) for i in range(size - 1)), (0, size - 1)]
        else:
            edges = [(i, j) for i in range(size) for j in range(i + 1, size)]
        compared: list[tuple[str, str, int | None]] = [
            (responses[better], responses[worse], cycle_id) for better, worse in edges
        ]
        if dominant:
            compared += [(row["responses"][0], response, None) for response in responses]
        for edge, (chosen, rejected, cycle) in enumerate(compared):
            pairs.append(
                {
                    "prompt": row["prompt"],
                    "chosen": chosen,
                    "rejected": rejected,
                    "cycle_id": cycle,
                    "edge": edge,
                    "topic": row["topic"],
                }
            )
    for index in random.Random(seed).sample(range(len(pairs)), round(label_noise * len(pairs))):
        pair = pairs[index]
        pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    return pairs


def split_topics(test_share: float = 0.25, seed: int = 0) -> tuple[list[str], list[str]]:
    """
    Splits the topics, so that a test can ask about subjects that training never mentioned.

    Args:
        test_share (`float`, defaults to 0.25): share of the topics for the test, rounded to whole ones.
        seed (`int`, defaults to 0): which topics these are.

    Returns:
        `tuple[list[str], list[str]]`: training topics and test topics, disjoint and together all topics.

    Raises:
        ValueError: a share that leaves one side empty.
    """
    count = round(test_share * len(TOPICS))
    if not 0 < count < len(TOPICS):
        raise ValueError(f"`test_share` must leave topics on both sides of {len(TOPICS)}, got {test_share}.")
    names = list(TOPICS)
    random.Random(seed).shuffle(names)
    return names[count:], names[:count]


def _questions(name: str) -> list[tuple[str, int]]:
    """All prompts about a topic, each with the number of the wording that it uses for the topic's activity."""
    topic = TOPICS[name]
    questions = [
        (question.format(do=do), variant) for variant, do in enumerate(topic["do"]) for question in DO_QUESTIONS
    ]
    return questions + [
        (question.format(doing=doing), variant)
        for variant, doing in enumerate(topic["doing"])
        for question in DOING_QUESTIONS
    ]


def _responses(rng: random.Random, name: str, variant: int, attributes: list[str]) -> list[str]:
    """One response per attribute; everything but the attribute's own sentences is drawn alike for all."""
    topic = TOPICS[name]
    fillings = {key: topic[key][variant] for key in ("do", "doing", "result")}
    tips = rng.sample(topic["tips"], len(attributes))
    responses = []
    for attribute, tip in zip(attributes, tips):
        own_frame = rng.random() < _ATTRIBUTE_TIP_SHARE
        frames = [
            rng.choice(ATTRIBUTE_TIP_SENTENCES[attribute] if own_frame else TIP_SENTENCES),
            rng.choice(ATTRIBUTES[attribute]),
        ]
        sentences = []
        # Two sentences about people speak of two different ones, or the same name would be introduced twice.
        for frame, who, when in zip(frames, rng.sample(PEOPLE, 2), rng.sample(TIMES, 2)):
            sentence = _fill_numbers(rng, frame).format(tip=tip, who=who, when=when, **fillings)
            sentences.append(sentence[0].upper() + sentence[1:])
        responses.append(" ".join(sentences))
    return responses


def _fill_numbers(rng: random.Random, sentence: str) -> str:
    """Puts another number in each place of a sentence that takes one."""
    for number in rng.sample(NUMBERS, sentence.count("{n}")):
        sentence = sentence.replace("{n}", number, 1)
    return sentence
