"""The generator of rings: its promises about order, texts and noise, and that no phrase gives an attribute away."""

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from string import Formatter

import pytest

from gpm_hf.data.generator import generate_rings, ring_pairs, split_topics
from gpm_hf.data.generator_texts import ATTRIBUTE_TIP_SENTENCES, ATTRIBUTES, TIP_SENTENCES, TOPICS
from gpm_hf.data.judged_groups import read_judged_group


def by_attribute(rows):
    texts = {}
    for row in rows:
        for response, attribute in zip(row["responses"], row["attributes"]):
            texts.setdefault(attribute, []).append(response)
    return texts


@pytest.fixture(scope="module")
def many():
    return generate_rings(1500, ring_size=5, seed=3)


def test_texts_are_complete():
    assert len(TOPICS) >= 60
    assert list(ATTRIBUTES) == list(ATTRIBUTE_TIP_SENTENCES)
    for name, topic in TOPICS.items():
        assert set(topic) == {"do", "doing", "result", "tips"}, name
        assert len(topic["do"]) == len(topic["doing"]) == len(topic["result"]), name
        # Five responses to one prompt carry five different tips.
        assert len(set(topic["tips"])) == len(topic["tips"]) > 5, name
    for attribute, sentences in ATTRIBUTES.items():
        assert len(set(sentences)) == len(sentences) >= 25, attribute
    for frames in ATTRIBUTE_TIP_SENTENCES.values():
        assert not set(frames) & set(TIP_SENTENCES)
        for frame in frames:
            assert "tip" in [field for _, field, _, _ in Formatter().parse(frame)], frame


def test_same_seed_same_rows_other_seed_other_rows():
    assert generate_rings(40, seed=1) == generate_rings(40, seed=1)
    first, second = generate_rings(40, seed=1), generate_rings(40, seed=2)
    assert [row["prompt"] for row in first] != [row["prompt"] for row in second]


@pytest.mark.parametrize("size", [3, 4, 5])
def test_rings_list_the_attributes_in_ring_order_from_a_random_start(size):
    names = list(ATTRIBUTES)[:size]
    starts = Counter()
    for row in generate_rings(300, ring_size=size, seed=4):
        start = names.index(row["attributes"][0])
        assert row["attributes"] == names[start:] + names[:start]
        assert len(set(row["responses"])) == size
        starts[start] += 1
    assert min(starts.values()) > 300 / size * 0.6


@pytest.mark.parametrize("size", [3, 5])
def test_transitive_rows_hold_the_same_texts(size):
    rings = generate_rings(100, ring_size=size, seed=5)
    ranked = generate_rings(100, ring_size=size, seed=5, transitive_share=1.0)
    for ring, row in zip(rings, ranked):
        assert (ring["prompt"], ring["topic"]) == (row["prompt"], row["topic"])
        assert dict(zip(ring["attributes"], ring["responses"])) == dict(zip(row["attributes"], row["responses"]))
        assert row["attributes"] == list(ATTRIBUTES)[:size]


@pytest.mark.parametrize(("share", "dominant"), [(0.5, False), (0.5, True)])
def test_rows_state_the_pairs_that_are_made_of_them(share, dominant):
    """`ring`, `ranking` and `preferences`, read as groups to be trained on, are what `ring_pairs` makes of a row."""
    for row in generate_rings(20, 4, seed=3, transitive_share=share, dominant=dominant):
        group = read_judged_group(row)
        stated = {(group.responses[pair.first], group.responses[pair.second]) for pair in group.pairs}
        assert stated == {(pair["chosen"], pair["rejected"]) for pair in ring_pairs([row])}
        assert len(stated) == len(group.pairs) and {pair.probability for pair in group.pairs} == {1.0}


def test_a_transitive_share_ranks_that_many_prompts_and_changes_no_text():
    rings, mixed = generate_rings(100, seed=5), generate_rings(100, seed=5, transitive_share=0.3)
    assert sum(row["transitive"] for row in mixed) == 30
    for ring, row in zip(rings, mixed):
        assert sorted(ring["responses"]) == sorted(row["responses"])
        if not row["transitive"]:
            assert ring == row
    # Of three attributes a ranking has the pairs of the ring but for the last, which is turned round.
    names = {text: name for row in mixed for text, name in zip(row["responses"], row["attributes"])}
    first, _, last = list(ATTRIBUTES)[:3]
    counts = Counter((names[pair["chosen"]], names[pair["rejected"]]) for pair in ring_pairs(mixed))
    assert (counts[last, first], counts[first, last]) == (70, 30)


def test_prompts_and_responses_look_as_promised(many):
    assert len({row["prompt"] for row in many}) == len(many)
    counts = Counter(row["topic"] for row in many)
    assert set(counts) == set(TOPICS)
    assert max(counts.values()) - min(counts.values()) <= 1
    for row in many:
        assert len(row["prompt"].split()) < 20
        for response in row["responses"]:
            assert 15 <= len(response.split()) <= 48, response
            sentences = re.split(r"(?<=[.?!]) ", response)
            assert 2 <= len(sentences) <= 3
            assert all(sentence[0] == sentence[0].upper() for sentence in sentences), response
            assert "{" not in response and "  " not in response


def test_all_distinct_prompts_can_be_had_and_no_more():
    with pytest.raises(ValueError, match=r"between 1 and \d+") as error:
        generate_rings(10**6)
    maximum = int(re.search(r"between 1 and (\d+)", str(error.value)).group(1))
    assert maximum > 3000
    assert len({row["prompt"] for row in generate_rings(maximum)}) == maximum
    one = generate_rings(maximum // len(TOPICS), topics=["soup"])
    with pytest.raises(ValueError, match="distinct prompts"):
        generate_rings(len(one) + 1, topics=["soup"])


def test_no_word_and_no_pair_of_words_gives_an_attribute_away(many):
    shares = {}
    for attribute, texts in by_attribute(many).items():
        counts = Counter()
        for text in texts:
            words = re.findall(r"[a-z0-9']+", text.lower())
            counts.update(set(words) | set(pairwise(words)))
        shares[attribute] = {phrase: count / len(texts) for phrase, count in counts.items()}
    for attribute, own in shares.items():
        others = [shares[name] for name in shares if name != attribute]
        give_away = [
            phrase for phrase, share in own.items() if share > 0.35 and all(o.get(phrase, 0) < 0.03 for o in others)
        ]
        assert not give_away, (attribute, give_away)


def test_lengths_and_tips_say_little_about_the_attribute(many):
    lengths = {name: sorted(len(text.split()) for text in texts) for name, texts in by_attribute(many).items()}
    lower = [values[len(values) // 20] for values in lengths.values()]
    upper = [values[-len(values) // 20] for values in lengths.values()]
    # The middle 90% of all attributes overlap.
    assert max(lower) < min(upper)

    tips = TOPICS["soup"]["tips"]
    drawn = by_attribute(generate_rings(60, ring_size=5, topics=["soup"]))
    for texts in drawn.values():
        # The first letter may be a capital.
        assert all(any(tip[1:] in text for text in texts) for tip in tips)


def test_ring_pairs_of_a_ring():
    rows = generate_rings(10, ring_size=4, seed=6)
    pairs = ring_pairs(rows)
    assert len(pairs) == 40
    for pair in pairs:
        row, edge = rows[pair["cycle_id"]], pair["edge"]
        assert list(pair) == ["prompt", "chosen", "rejected", "cycle_id", "edge", "topic"]
        assert (pair["prompt"], pair["topic"]) == (row["prompt"], row["topic"])
        assert (pair["chosen"], pair["rejected"]) == (row["responses"][edge], row["responses"][(edge + 1) % 4])


def test_ring_pairs_of_a_ranking():
    rows = generate_rings(10, ring_size=5, seed=6, transitive_share=1.0)

    def edges(pairs):
        responses = rows[0]["responses"]
        own = [pair for pair in pairs if pair["cycle_id"] == 0]
        return [(responses.index(pair["chosen"]), responses.index(pair["rejected"])) for pair in own]

    assert edges(ring_pairs(rows)) == [(i, j) for i in range(5) for j in range(i + 1, 5)]
    equal = ring_pairs(rows, equal_size=True)
    assert edges(equal) == [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)]
    assert len(equal) == len(ring_pairs(generate_rings(10, ring_size=5, seed=6)))


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_dominant_response_stands_before_the_others_and_beats_them(size, share):
    names = list(ATTRIBUTES)
    rows = generate_rings(60, ring_size=size, seed=8, transitive_share=share, dominant=True)
    pairs = ring_pairs(rows)
    starts = set()
    for number, row in enumerate(rows):
        assert row["dominant"] is True and len(set(row["responses"])) == size + 1
        first, *others = row["attributes"]
        start = names.index(others[0])
        assert first == names[size] and others == names[start:size] + names[:start]
        starts.add(start)
        own = [pair for pair in pairs if pair["prompt"] == row["prompt"]]
        inner = [pair for pair in own if pair["cycle_id"] is not None]
        outer = [pair for pair in own if pair["cycle_id"] is None]
        assert own == [*inner, *outer] and [pair["edge"] for pair in own] == list(range(len(own)))
        assert {pair["cycle_id"] for pair in inner} == {number}
        place = {text: index for index, text in enumerate(row["responses"])}
        edges = [(place[pair["chosen"]], place[pair["rejected"]]) for pair in inner]
        ring = [(i, i % size + 1) for i in range(1, size + 1)]
        ranking = [(i, j) for i in range(1, size + 1) for j in range(i + 1, size + 1)]
        assert edges == (ranking if share else ring)
        assert [(place[pair["chosen"]], place[pair["rejected"]]) for pair in outer] == [
            (0, i) for i in range(1, size + 1)
        ]
    assert starts == ({0} if share else set(range(size)))


def test_without_a_dominant_response_nothing_is_changed():
    """
    A digest of what the generator gave before it knew of one. Whoever changes the texts changes it, and with it the
    numbers that the README gives for these data.
    """
    kinds = [(50, 3, 0, 0, False), (40, 4, 1, 0.5, True), (40, 5, 2, 1.0, False)]
    written: list = [
        ring_pairs(generate_rings(count, size, seed, share), label_noise=0.1, seed=2, equal_size=equal)
        for count, size, seed, share, equal in kinds
    ]
    rows = generate_rings(30, 5, 3, 0.3)
    statements = [{name: row.pop(name) for name in ("ring", "ranking") if name in row} for row in rows]
    assert statements == [{"ranking": list(range(5))} if row["transitive"] else {"ring": True} for row in rows]
    written.append(rows)
    digest = hashlib.sha256(json.dumps(written).encode()).hexdigest()
    assert digest == "c50cbd5179147af5aa36b5308283f9bd72d2c105a627460ab0e67cf0a72783b3"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1.0])
def test_label_noise_swaps_exactly_its_share(share):
    rows = generate_rings(50, seed=7)
    clean, noisy = ring_pairs(rows), ring_pairs(rows, label_noise=share, seed=1)
    swapped = [
        index
        for index, (a, b) in enumerate(zip(clean, noisy))
        if (a["chosen"], a["rejected"]) == (b["rejected"], b["chosen"])
    ]
    assert len(swapped) == round(share * len(clean))
    assert noisy == ring_pairs(rows, label_noise=share, seed=1)
    if 0 < share < 1:
        assert noisy != ring_pairs(rows, label_noise=share, seed=2)
    for index in set(range(len(clean))) - set(swapped):
        assert clean[index] == noisy[index]


def test_split_topics_is_disjoint_and_complete():
    train, test = split_topics(0.25, seed=0)
    assert not set(train) & set(test)
    assert sorted(train + test) == sorted(TOPICS)
    assert len(test) == round(0.25 * len(TOPICS))
    assert (train, test) == split_topics(0.25, seed=0)
    assert test != split_topics(0.25, seed=1)[1]
    assert {row["topic"] for row in generate_rings(200, topics=test)} == set(test)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: generate_rings(5, ring_size=2), "ring_size"),
        (lambda: generate_rings(5, ring_size=6), "ring_size"),
        (lambda: generate_rings(5, ring_size=5, dominant=True), "between 3 and 4 beside a dominant response"),
        (lambda: generate_rings(0), "num_prompts"),
        (lambda: generate_rings(5, topics=["soup", "alchemy"]), "alchemy"),
        (lambda: generate_rings(5, topics=[]), "at least one topic"),
        (lambda: ring_pairs([], label_noise=1.5), "label_noise"),
        (lambda: generate_rings(5, transitive_share=-0.1), "transitive_share"),
        (lambda: split_topics(0.0), "test_share"),
        (lambda: split_topics(1.0), "test_share"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
