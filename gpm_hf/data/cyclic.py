"""
CyclicPreference: preference data that goes round in circles, out of responses rated on several aspects.

After the cyclic preference data of "Beyond Bradley-Terry Models" (table 1, appendix F): where a response is better
than a second on one aspect, the second better than a third on the next, and the third better than the first on yet
another, the three form a cycle, which no scalar reward can hold.
"""

import atexit
import functools
import hashlib
import itertools
import json
import logging
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset, DatasetDict, Features, List, Value
from datasets.exceptions import DatasetGenerationError

from gpm_hf.data.rated_rings import choose_rings, find_rated_rings, read_rated_row
from gpm_hf.data.rings import MESSAGES, pairs_to_groups, ring_edges
from gpm_hf.files import scratch_folder

logger = logging.getLogger(__name__)

# UltraFeedback's aspects in the order of the paper's chain.
PAPER_ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
SPLITS = ("train", "test_pairs", "test_prompts")

PAIR_FEATURES = Features(
    {
        "prompt": MESSAGES,
        "chosen": MESSAGES,
        "rejected": MESSAGES,
        "cycle_id": Value("string"),
        "edge": Value("int32"),
        "aspect": Value("string"),
        "chosen_rating": Value("float64"),
        "rejected_rating": Value("float64"),
    }
)
_PLACES = List(Value("int32"))
_RINGS = List({"configuration": Value("string"), "members": _PLACES, "ratings": List(List(Value("float64")))})
_ROW_FEATURES = Features(
    {
        "number": Value("int64"),
        "prompt": Value("string"),
        "responses": List(Value("string")),
        "places": _PLACES,
        "rings": _RINGS,
        "problems": List(Value("string")),
        "found": List(Value("int64")),
        "named": List(Value("bool")),
    }
)


@dataclass
class ConfigurationReport:
    """
    Counts of one configuration.

    Attributes:
        aspects: one per edge of a ring, in the ring's order.
        cycles_found: all rings in the data.
        cycles: those that are kept: no two rings of a prompt share a pair of responses.
        prompts: prompts with at least one of them.
        pairs: pairs in each split.
        gaps: how many kept edges have a given rating gap (rounded to 0.01).
    """

    aspects: tuple[str, ...]
    cycles_found: int = 0
    cycles: int = 0
    prompts: int = 0
    pairs: dict[str, int] = field(default_factory=dict)
    gaps: Counter = field(default_factory=Counter)


@dataclass
class CyclicReport:
    """
    What became of the rows.

    Attributes:
        rows: rows read.
        problems: what was left out, counted by reason. "row: ..." counts rows, "response: ..." single responses and
            "rating: ..." single ratings; a response without one rating still serves where that aspect is not asked.
        min_gap, seed, test_share: as given.
        configurations: by name.
    """

    rows: int
    problems: Counter
    min_gap: float
    seed: int
    test_share: float
    configurations: dict[str, ConfigurationReport]

    def __str__(self) -> str:
        lines = [f"{self.rows} rows read."]
        if self.problems:
            lines.append("Left out:")
            lines += [f"  {count:>8}  {reason}" for reason, count in sorted(self.problems.items())]
        for name, counts in self.configurations.items():
            if not counts.cycles_found:
                lines.append(f"{name}: no cycles")
                continue
            splits = ", ".join(f"{split} {count}" for split, count in counts.pairs.items())
            lines.append(
                f"{name}: {counts.cycles} cycles of {len(counts.aspects)} over {counts.prompts} prompts (of "
                f"{counts.cycles_found} found; the others share a pair with one of these); pairs: {splits}"
            )
        return "\n".join(lines)


class CyclicDatasets(dict[str, DatasetDict]):
    """
    What [`build_cyclic_dataset`] returns: the pairs by configuration.

    Attributes:
        report ([`CyclicReport`]): counts.
    """

    report: CyclicReport

    def groups(self, configuration: str) -> DatasetDict:
        """
        A configuration as groups: one row per prompt, in the same splits, with `prompt`, `responses` and `scores`
        (K x K differences of ratings), see [`pairs_to_groups`].
        """
        return DatasetDict({split: pairs_to_groups(pairs) for split, pairs in self[configuration].items()})


def build_cyclic_dataset(
    rows: Dataset | Iterable[Mapping[str, Any]],
    aspects: Sequence[str] = PAPER_ASPECTS,
    min_gap: float = 1.0,
    seed: int = 0,
    test_share: float = 0.1,
    num_proc: int | None = None,
) -> CyclicDatasets:
    """
    Finds the preference cycles in rated responses.

    A ring takes as many responses as there are aspects: the first beats the second on the first aspect, the second
    the third on the second aspect, ..., the last the first on the last aspect, each by at least `min_gap`.

    Args:
        rows: data in UltraFeedback's schema, `instruction` and `completions[{response, annotations{aspect:
            {"Rating"}}}]`; ratings may be numbers or strings. A [`~datasets.Dataset`] is read from disk as it goes; an
            iterable of dictionaries is held in memory.
        aspects: the chain of aspects, at least three.
        min_gap: the least difference of ratings behind an edge; any edge has a difference.
        seed: decides between rings of one prompt that exclude each other, and what is held out.
        test_share: the share of the prompts that go to `test_prompts`, and the share of the other prompts' rings
            that give one of their pairs to `test_pairs`; at least one of each where there are two.
        num_proc: number of processes.

    Returns:
        [`CyclicDatasets`], a `dict[str, DatasetDict]`: the configuration "all" with rings over all aspects and, from
        four aspects on, "no_<aspect>" with rings over all but that one. Columns: `prompt`, `chosen`, `rejected` (chat
        messages), `cycle_id` (numbers of the row and of its completions), `edge` (its place in the ring), `aspect`,
        `chosen_rating` and `rejected_rating`. Splits: `train`; `test_pairs`, other pairs of cycles that are in `train`
        (the paper's kind of test); `test_prompts`, all pairs of prompts that are not in `train`, the same prompts in
        every configuration. A configuration in which no ring was found is there and empty.

    Raises:
        ValueError: arguments that make no sense, an aspect on which no response is rated, or data in which no ring was
            found; the message counts why.
    """
    configurations = _configurations(aspects, min_gap, test_share)
    table = _as_dataset(rows)
    found = table.map(
        _rings_of_row,
        with_indices=True,
        fn_kwargs={"configurations": configurations, "aspects": list(aspects), "min_gap": min_gap, "seed": seed},
        remove_columns=table.column_names,
        features=_ROW_FEATURES,
        num_proc=num_proc,
        # What is found also depends on this code, which the cache does not see.
        load_from_cache_file=False,
        desc="Looking for cycles",
    )
    named = [any(row) for row in zip(*found["named"])]
    if any(named) and not all(named):
        unknown = [aspect for aspect, is_named in zip(aspects, named) if not is_named]
        raise ValueError(
            f"No response is rated on {unknown}.{_aspects_of(table)} Name the aspects that the data rates."
        )
    found, repeated = _first_of_each_prompt(found)
    counts, problems = _count(found, configurations)
    if repeated:
        problems["row: same instruction as an earlier one that has cycles"] = repeated
    report = CyclicReport(len(table), problems, min_gap, seed, test_share, counts)
    if report.problems:
        logger.warning(
            "Left out of %d rows: %s.",
            report.rows,
            "; ".join(f"{reason} ({count})" for reason, count in sorted(report.problems.items())),
        )
    if not any(counts.cycles for counts in report.configurations.values()):
        raise ValueError(_nothing_found(report, table, aspects))

    pairs = found.map(
        _pairs_of_rows,
        batched=True,
        batch_size=100,
        fn_kwargs={"configurations": configurations},
        remove_columns=found.column_names,
        features=Features({"configuration": Value("string"), "row_prompt": Value("string")} | dict(PAIR_FEATURES)),
        num_proc=num_proc,
        # What is found also depends on this code, which the cache does not see.
        load_from_cache_file=False,
        desc="Writing the pairs",
    )
    test_prompts = set(_sample(set(pairs["row_prompt"]), test_share, seed))
    places: dict[str, dict[str, list[int]]] = {name: {split: [] for split in SPLITS} for name in configurations}
    columns = zip(*(pairs[column] for column in ("configuration", "row_prompt", "cycle_id", "edge")))
    train_cycles: dict[str, dict[str, list[tuple[int, int]]]] = {name: {} for name in configurations}
    for place, (name, prompt, cycle, edge) in enumerate(columns):
        if prompt in test_prompts:
            places[name]["test_prompts"].append(place)
        else:
            train_cycles[name].setdefault(cycle, []).append((edge, place))
    for name, cycles in train_cycles.items():
        giving = set(_sample(set(cycles), test_share, seed))
        for cycle, edges in cycles.items():
            held_out = _number(seed, "edge", cycle) % len(edges) if cycle in giving else None
            for edge, place in edges:
                places[name]["test_pairs" if edge == held_out else "train"].append(place)

    pairs = pairs.remove_columns(["configuration", "row_prompt"])
    built = CyclicDatasets()
    built.report = report
    for name, splits in places.items():
        built[name] = DatasetDict({split: pairs.select(chosen) for split, chosen in splits.items()})
        report.configurations[name].pairs = {split: len(chosen) for split, chosen in splits.items()}
        if not report.configurations[name].cycles:
            logger.warning("The configuration %r has no cycle and is empty.", name)
    return built


def _configurations(aspects: Sequence[str], min_gap: float, test_share: float) -> dict[str, list[str]]:
    if isinstance(aspects, str) or len(set(aspects)) != len(aspects) or len(aspects) < 3:
        raise ValueError(f"`aspects` must be at least three different names, got {aspects!r}.")
    # They become names of configurations, and so of folders, beside the groups'.
    unfit = [name for name in aspects if not re.fullmatch(r"[\w][\w.-]*", name) or name.endswith("_groups")]
    if unfit:
        raise ValueError(f'`aspects` are letters, digits, ".", "-" and "_", and do not end in "_groups"; got {unfit}.')
    if not min_gap >= 0 or not math.isfinite(min_gap):
        raise ValueError(f"`min_gap` is a difference of ratings, zero or more; got {min_gap}.")
    if not 0 <= test_share < 1:
        raise ValueError(f"`test_share` is a share from 0 up to, but not 1; got {test_share}.")
    configurations = {"all": list(aspects)}
    if len(aspects) > 3:
        for left_out in aspects:
            configurations[f"no_{left_out}"] = [aspect for aspect in aspects if aspect != left_out]
    return configurations


def _as_dataset(rows: Dataset | Iterable[Mapping[str, Any]]) -> Dataset:
    if isinstance(rows, Dataset) and len(rows):
        return rows

    rows = iter(rows)
    first = list(itertools.islice(rows, 1))
    if not first:
        raise ValueError("There are no rows to look for cycles in.")

    def lines():
        for row in itertools.chain(first, rows):
            # As JSON, because columns take one type each and ratings come as "4", 4.0 and "N/A".
            yield {"json": json.dumps(_without_ballast(row))}

    try:
        return Dataset.from_generator(lines, cache_dir=_scratch_folder(), fingerprint=uuid.uuid4().hex)
    except DatasetGenerationError as error:
        # The rows' own error, say about a line of a file, is the one that helps.
        raise error.__cause__ or error from None


def _without_ballast(row: Any) -> Any:
    """The fields that are read: in UltraFeedback most of the text is the reasons for ratings."""
    if not isinstance(row, Mapping) or not isinstance(row.get("completions"), (list, tuple)):
        return row
    completions = []
    for completion in row["completions"]:
        if isinstance(completion, Mapping) and isinstance(completion.get("annotations"), Mapping):
            annotations = {
                aspect: {"Rating": annotation.get("Rating")} if isinstance(annotation, Mapping) else annotation
                for aspect, annotation in completion["annotations"].items()
            }
            completion = {"response": completion.get("response"), "annotations": annotations}
        completions.append(completion)
    return {"instruction": row.get("instruction"), "completions": completions}


@functools.cache
def _scratch_folder() -> str:
    """A folder for what was built from rows that have no file of their own; it goes when the interpreter ends."""
    until_the_end = ExitStack()
    atexit.register(until_the_end.close)
    return str(until_the_end.enter_context(scratch_folder("cyclic")))


def _rings_of_row(row, number, configurations, aspects, min_gap, seed):
    row = json.loads(row["json"]) if row.keys() == {"json"} else row
    if not isinstance(row, Mapping):
        row = {}
    read = read_rated_row(row, aspects)
    rings, found = [], []
    for name, chain in configurations.items():
        usable = not read.reason and len(read.responses) >= len(chain)
        everything = find_rated_rings([read.ratings[aspect] for aspect in chain], min_gap) if usable else []
        found.append(len(everything))
        for ring in choose_rings(everything, f"{seed} {name} {read.prompt}"):
            ratings = [
                [read.ratings[aspect][better], read.ratings[aspect][worse]]
                for aspect, (better, worse) in zip(chain, ring_edges(ring.members))
            ]
            rings.append({"configuration": name, "members": list(ring.members), "ratings": ratings})
    return {
        "number": number,
        "prompt": read.prompt,
        # The texts are of no more use where nothing was found.
        "responses": read.responses if rings else [],
        "places": read.places if rings else [],
        "rings": rings,
        "problems": read.problems + ([read.reason] if read.reason else []),
        "found": found,
        "named": [aspect in _named_aspects(row) for aspect in aspects],
    }


def _named_aspects(row: Mapping[str, Any]) -> set[str]:
    """Those that a row has annotations for, whatever these say."""
    completions = row.get("completions")
    annotations = [
        completion.get("annotations")
        for completion in (completions if isinstance(completions, (list, tuple)) else ())
        if isinstance(completion, Mapping)
    ]
    return {
        aspect
        for own in annotations
        if isinstance(own, Mapping)
        for aspect, annotation in own.items()
        # A table has every aspect as a column, empty where a row does not have it.
        if annotation is not None
    }


def _pairs_of_rows(rows, configurations):
    pairs: dict[str, list] = {name: [] for name in ("configuration", "row_prompt", *PAIR_FEATURES)}
    used = [rows[name] for name in ("number", "prompt", "responses", "places", "rings")]
    for number, prompt, responses, places, rings in zip(*used):
        for ring in rings:
            members, chain = ring["members"], configurations[ring["configuration"]]
            cycle_id = f"{number}/{'-'.join(str(places[member]) for member in members)}"
            for edge, (better, worse) in enumerate(ring_edges(members)):
                pairs["configuration"].append(ring["configuration"])
                pairs["row_prompt"].append(prompt.strip())
                pairs["prompt"].append([{"role": "user", "content": prompt}])
                pairs["chosen"].append([{"role": "assistant", "content": responses[better]}])
                pairs["rejected"].append([{"role": "assistant", "content": responses[worse]}])
                pairs["cycle_id"].append(cycle_id)
                pairs["edge"].append(edge)
                pairs["aspect"].append(chain[edge])
                pairs["chosen_rating"].append(ring["ratings"][edge][0])
                pairs["rejected_rating"].append(ring["ratings"][edge][1])
    return pairs


def _first_of_each_prompt(found: Dataset) -> tuple[Dataset, int]:
    """Drops rows with cycles whose prompt had some already: its pairs would be repeated or contradicted."""
    seen: set[str] = set()
    kept = []
    for place, (prompt, places) in enumerate(zip(found["prompt"], found["places"])):
        # As responses are compared: white space around a text makes no other one.
        if not places or prompt.strip() not in seen:
            kept.append(place)
        if places:
            seen.add(prompt.strip())
    return (found if len(kept) == len(found) else found.select(kept)), len(found) - len(kept)


def _count(found: Dataset, configurations: dict[str, list[str]]) -> tuple[dict[str, ConfigurationReport], Counter]:
    counts = {name: ConfigurationReport(tuple(chain)) for name, chain in configurations.items()}
    problems: Counter[str] = Counter()
    prompts: dict[str, set[str]] = {name: set() for name in configurations}
    for row in found.select_columns(["prompt", "rings", "problems", "found"]):
        problems.update(row["problems"])
        for name, number in zip(configurations, row["found"]):
            counts[name].cycles_found += number
        for ring in row["rings"]:
            name = ring["configuration"]
            counts[name].cycles += 1
            prompts[name].add(row["prompt"])
            counts[name].gaps.update(round(better - worse, 2) for better, worse in ring["ratings"])
    for name, own in prompts.items():
        counts[name].prompts = len(own)
    return counts, problems


def _nothing_found(report: CyclicReport, table: Dataset, aspects: Sequence[str]) -> str:
    reasons = "; ".join(f"{reason} ({count})" for reason, count in sorted(report.problems.items())) or "none"
    return (
        f"No preference cycle over {list(aspects)} with a gap of at least {report.min_gap} was found in {report.rows} "
        f"rows. Left out: {reasons}.{_aspects_of(table)} Name the aspects that the data rates, or lower `min_gap`."
    )


def _aspects_of(table: Dataset) -> str:
    first = json.loads(table[0]["json"]) if table.column_names == ["json"] else table[0]
    try:
        rated = sorted({aspect for completion in first["completions"] for aspect in completion["annotations"]})
    except (KeyError, TypeError):
        rated = []
    return f" The first row's aspects are {rated}." if rated else " The first row has no annotations."


def _number(*key: Any) -> int:
    """A number that looks random but depends on the key alone: not on the order of rows or on other rows."""
    return int.from_bytes(hashlib.sha256(json.dumps(key).encode()).digest()[:8], "big")


def _sample(names: set[str], share: float, seed: int) -> list[str]:
    count = round(share * len(names))
    if share > 0 and len(names) > 1:
        count = min(max(count, 1), len(names) - 1)
    return sorted(names, key=lambda name: _number(seed, name))[:count]
