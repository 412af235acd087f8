"""`gpm-hf build-cyclic` and `gpm-hf generate-cyclic`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from gpm_hf.cli.outputs import writes
from gpm_hf.files import write_rows


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    build = commands.add_parser(
        "build-cyclic",
        help="find preference cycles in rated or judged responses",
        description="Finds preference cycles. Rated responses (UltraFeedback's schema) become a CyclicPreference data "
        "set, a folder as the Hub stores it. Judged ones (--judge) become a file with one ring per row.",
    )
    build.add_argument("source", help="a data file (.jsonl, .json, .parquet, ...), or a data set of the Hub")
    build.add_argument("output", help="the folder to write; with --judge the .jsonl file")
    build.add_argument("--config", help="the source's configuration")
    build.add_argument("--split", default="train", help="the source's split")
    build.add_argument("--aspects", help="the chain, separated by commas (default: UltraFeedback's four)")
    build.add_argument("--min-gap", type=float, default=1.0, help="least difference of ratings behind an edge")
    build.add_argument("--test-share", type=float, default=0.1, help="share of prompts, and of cycles, to hold out")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--num-proc", type=int, help="number of processes")
    build.add_argument("--license", help="the source's licence, for the card")
    build.add_argument("--judged", action="store_true", help="rows hold pairwise judgements, not ratings")
    build.add_argument("--judge", help="rows hold pairwise judgements by several judges: take this one's")
    build.add_argument("--push-to-hub", metavar="REPO", help="upload the folder to this data set repository")
    build.add_argument("--private", action="store_true", default=None, help="make a new repository private")
    writes(build, lambda options: [options.output], folder=True)
    build.set_defaults(run=_build)

    generate = commands.add_parser(
        "generate-cyclic",
        help="make systematic preference cycles of plain English",
        description="Writes preference pairs whose attributes beat each other in a ring over many topics.",
    )
    generate.add_argument("output", help="the .jsonl file to write")
    generate.add_argument("--prompts", type=int, default=200)
    generate.add_argument("--ring-size", type=int, default=3, choices=[3, 4, 5])
    generate.add_argument(
        "--transitive-share", type=float, default=0.0, help="share of prompts with a ranking instead"
    )
    generate.add_argument("--dominant", action="store_true", help="one more response beats all members of the ring")
    generate.add_argument("--label-noise", type=float, default=0.0, help="share of pairs that are swapped")
    generate.add_argument(
        "--topics", choices=["all", "train", "test"], default="all", help="all, or one side of a split by topic"
    )
    generate.add_argument("--seed", type=int, default=0)
    writes(generate, lambda options: [options.output])
    generate.set_defaults(run=_generate)


def _build(options: argparse.Namespace) -> None:
    if options.judge or options.judged:
        _build_from_judgments(options)
        return
    from gpm_hf.data.cyclic import PAPER_ASPECTS, build_cyclic_dataset
    from gpm_hf.hub.cyclic_dataset import push_cyclic_dataset, save_cyclic_dataset

    output = Path(options.output)
    # The report says the same.
    logging.getLogger("gpm_hf.data.cyclic").setLevel(logging.ERROR)
    aspects = [name.strip() for name in options.aspects.split(",")] if options.aspects else PAPER_ASPECTS
    datasets = build_cyclic_dataset(
        _source(options),
        aspects=aspects,
        min_gap=options.min_gap,
        seed=options.seed,
        test_share=options.test_share,
        num_proc=options.num_proc,
    )
    local = Path(options.source).exists()
    save_cyclic_dataset(
        datasets,
        output,
        source=Path(options.source).name if local else f"`{options.source}`, split {options.split}",
        repo=options.push_to_hub,
        license=options.license,
        overwrite=options.overwrite,
    )
    print(f"{datasets.report}\nWritten to {output}.")
    if options.push_to_hub:
        commit = push_cyclic_dataset(output, options.push_to_hub, private=options.private)
        print(f"Uploaded: {commit.commit_url}")


def _build_from_judgments(options: argparse.Namespace) -> None:
    from gpm_hf.data.judgments import cycles_from_judgments

    if options.push_to_hub:
        raise ValueError("--push-to-hub belongs to rated responses: --judge writes a file of rings.")
    cycles, report = cycles_from_judgments(_source(options), judge=options.judge)
    write_rows(options.output, cycles)
    print(f"{report}\n{len(cycles)} rings written to {options.output}.")
    print(_cycle_or_noise(options))


def _cycle_or_noise(options: argparse.Namespace) -> str:
    """Whether the judge's cycles are more than those of a ranking with the judge's noise."""
    from gpm_hf.evaluation.reports.cycle_or_noise import data_cycles

    rows = ((f"row {number}", row) for number, row in enumerate(_source(options), 1))
    try:
        return data_cycles(rows, options.judge).sentence()
    except ValueError as reason:
        return f"Whether these cycles are more than noise was not tested. {reason}"


def _generate(options: argparse.Namespace) -> None:
    from gpm_hf.data.generator import generate_rings, ring_pairs, split_topics

    topics = None if options.topics == "all" else split_topics()[options.topics == "test"]
    rows = generate_rings(
        options.prompts,
        ring_size=options.ring_size,
        seed=options.seed,
        transitive_share=options.transitive_share,
        topics=topics,
        dominant=options.dominant,
    )
    pairs = ring_pairs(rows, label_noise=options.label_noise, seed=options.seed)
    write_rows(options.output, pairs)
    print(f"{len(pairs)} pairs over {len(rows)} prompts written to {options.output}.")


def _source(options: argparse.Namespace) -> Any:
    from gpm_hf.data.raw_rows import read_sure_rows
    from gpm_hf.data.splits import is_local, load_splits, split_of

    if is_local(options.source, options.config):
        return (row for _, row in read_sure_rows(options.source, options.split, options.config))
    return split_of(load_splits(options.source, options.config), options.split)
