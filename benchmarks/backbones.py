"""
Every causal language model of transformers as a backbone of a preference model: what is exact, what takes the slow
road, what is refused. Tiny random models, one after the other, each in a process of its own.

    python benchmarks/backbones.py --output backbones.json
    python benchmarks/backbones.py --output backbones.json --types llama gemma2     # these again, the rest as it was
    python benchmarks/backbones.py --print backbones.json newest.json               # the tables of docs/backbones.md

A type that the output holds already is not asked again: a run that was stopped goes on.
"""

import argparse
import datetime
import json
from collections import Counter
from pathlib import Path

import peft
import torch
import transformers

from gpm_hf.files import written_whole
from gpm_hf.tables import markdown_table
from tests.modeling.backbones.cells import CELLS
from tests.modeling.backbones.matrix import examine_apart
from tests.modeling.backbones.tiny import model_types

VERDICTS = ("right", "fallback", "refused", "wrong", "error")
WORDS = {
    "right": "yes",
    "fallback": "slow road",
    "absent": "none",
    "refused": "refused",
    "wrong": "WRONG",
    "error": "ERROR",
}


def verdict_of(cells: dict) -> str:
    """Of a type: its worst cell; refused where there is no preference model of it."""
    verdicts = {cell["verdict"] for cell in cells.values()}
    for worst in ("error", "wrong"):
        if worst in verdicts:
            return worst
    if "refused" in (cells["load"]["verdict"], cells.get("alone", cells["load"])["verdict"]):
        return "refused"
    return "fallback" if verdicts & {"fallback", "refused"} else "right"


def counts(results: dict) -> Counter:
    return Counter(verdict_of(result["cells"]) for result in results["types"].values())


def tables(runs: list[dict]) -> str:
    """Counts of each run, then the types of the last one."""
    rows = [
        [
            f"transformers {run['transformers']}, PEFT {run['peft']}, torch {run['torch']}, {run['date']}",
            len(run["types"]),
        ]
        + [counts(run)[verdict] for verdict in VERDICTS]
        for run in runs
    ]
    head = ["packages", "types", "right by every road", "slow roads", "refused", "wrong", "raw error"]
    text = [markdown_table(head, rows)]
    types = runs[-1]["types"]
    of = {
        verdict: [name for name in sorted(types) if verdict_of(types[name]["cells"]) == verdict]
        for verdict in VERDICTS
    }
    text.append("## Right by every road\n\n" + ", ".join(f"`{name}`" for name in of["right"]) + ".")
    lacking = {
        name: [cell for cell, found in types[name]["cells"].items() if found["verdict"] == "absent"]
        for name in of["right"]
    }
    without = [f"`{name}` ({', '.join(cells)})" for name, cells in lacking.items() if cells]
    text.append("transformers itself lacks: " + (", ".join(without) or "nothing") + ".")
    others = [
        [
            f"`{name}`",
            *(WORDS[types[name]["cells"][cell]["verdict"]] if cell in types[name]["cells"] else "" for cell in CELLS),
        ]
        for name in sorted(of["fallback"] + of["wrong"] + of["error"])
    ]
    text.append("## Some roads slow, or refused\n\n" + markdown_table(["type", *CELLS], others))
    refused = [
        [f"`{name}`", next(cell["why"] for cell in types[name]["cells"].values() if cell["verdict"] == "refused")]
        for name in of["refused"]
    ]
    text.append("## Refused\n\n" + markdown_table(["type", "what it says"], refused))
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="the results, JSON")
    parser.add_argument("--types", nargs="+", choices=model_types(), metavar="TYPE", help="ask these (anew)")
    parser.add_argument("--print", nargs="+", type=Path, metavar="FILE", help="print the tables of earlier results")
    args = parser.parse_args()
    if args.print:
        print(tables([json.loads(file.read_text()) for file in args.print]))
        return
    if args.output is None:
        parser.error("give --output, or --print")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    versions = {"transformers": transformers.__version__, "peft": peft.__version__, "torch": torch.__version__}
    results = json.loads(args.output.read_text()) if args.output.exists() else {**versions, "types": {}}
    results["date"] = f"{datetime.date.today()}"
    if {name: results[name] for name in versions} != versions:
        parser.error(f"{args.output} is of other packages: give another --output.")
    for model_type in args.types or [name for name in model_types() if name not in results["types"]]:
        results["types"][model_type] = found = examine_apart(model_type)
        print(model_type, verdict_of(found["cells"]), f"{found['cpu']} s", flush=True)
        with written_whole(args.output) as file:
            json.dump(results, file, indent=1)
    print(tables([results]))


if __name__ == "__main__":
    main()
