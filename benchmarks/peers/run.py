"""
Runs the tests of TRL, PEFT and transformers against this package, from a checkout that you name:

    python benchmarks/peers/run.py trl --checkout ~/trl
    python benchmarks/peers/run.py peft --checkout ~/peft
    python benchmarks/peers/run.py transformers --checkout ~/transformers

Take the version that is installed, or the nearest one; source distributions have the tests of transformers and PEFT,
and those of TRL up to 0.23. The suites' own packages are those that are installed, too; of the checkout only `tests/`
is read. What they would fetch from the Hub is made here, tiny and random, and so is what they test: see
`suite_*.py` for what stands in whose place. They need `pip install parameterized
scikit-learn` beside `gpm-hf[dev]`.

`intended_*.txt` names the tests that fail on purpose, each with its reason. Every other failure is a fault, and then
the exit status is 1. A line of which no test fails any more is told, so that it can go.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=["trl", "peft", "transformers"])
    parser.add_argument("--checkout", required=True, type=Path, help="folder of the suite's repository")
    parser.add_argument("--variant", action="append", help="one of the suite's; by default all")
    parser.add_argument("-k", default="", help="only the tests that match, as pytest's -k")
    options = parser.parse_args()
    if not (options.checkout / "tests").is_dir():
        parser.error(f"{options.checkout} has no folder `tests`: name a checkout of {options.suite}.")
    faults = 0
    suite = import_module(f"suite_{options.suite}")
    for variant in options.variant or suite.VARIANTS:
        own = run(options.suite, variant, options.checkout, options.k, own=True) if suite.COMPARED else {}
        rows = run(options.suite, variant, options.checkout, options.k)
        # What fails in the suite's own hands says nothing of this package.
        left = {test: row for test, row in rows.items() if test not in own or own[test]["outcome"] != "failed"}
        faults += report(options.suite, variant, left, len(rows) - len(left), whole=not options.k)
    return 1 if faults else 0


def run(suite, variant, checkout, keyword, own=False):
    """Outcomes of the tests by name, `{"test", "outcome", "cause"}`; failed where a part of one has failed."""
    with tempfile.TemporaryDirectory() as folder:
        # This package's own tests must not be found in the place of the suite's, which may be no package yet.
        os.symlink(HERE.parents[1] / "gpm_hf", Path(folder, "gpm_hf"))
        tests = Path(folder, "tests")
        tests.mkdir()
        for path in (checkout.resolve() / "tests").iterdir():
            os.symlink(path, tests / path.name)
        (tests / "__init__.py").touch()
        results = Path(folder, "results.jsonl")
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([folder, str(HERE)]),
            "HF_HOME": str(Path(folder, "hub")),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PEERS_SUITE": suite,
            "PEERS_VARIANT": variant,
            "PEERS_OWN": "1" if own else "",
            "PEERS_REPORT": str(results),
        }
        command = [sys.executable, "-m", "pytest", "-p", "plugin", "-q", "--tb=short", "--no-header", "-W", "ignore"]
        command += ["--rootdir", folder, "-c", os.devnull, "-p", "no:cacheprovider"]
        files = import_module(f"suite_{suite}").VARIANTS[variant]
        done = subprocess.run([*command, *(["-k", keyword] if keyword else []), *files], cwd=folder, env=environment)
        # 0: all passed, 1: some failed; all else is no whole run.
        if done.returncode not in (0, 1) or not results.exists():
            raise SystemExit(f"The tests of {suite} did not run to their end (status {done.returncode}): see above.")
        rows = [json.loads(line) for line in results.read_text().splitlines()]
        return {row["test"]: row for row in sorted(rows, key=lambda row: row["outcome"] == "failed")}


def report(suite, variant, rows, left_out, whole):
    """Prints the counts and the faults; returns the number of these."""
    intended = intended_differences(HERE / f"intended_{suite}.txt", variant)
    failed = {test: row["cause"] for test, row in rows.items() if row["outcome"] == "failed"}
    reasons = {test: [line for line in intended if fnmatchcase(test, f"*{line}")] for test in failed}
    faults = {test: cause for test, cause in failed.items() if not reasons[test]}
    passed = sum(row["outcome"] == "passed" for row in rows.values())
    skipped = sum(row["outcome"] == "skipped" for row in rows.values())
    print(f"\n{suite}, {variant}: {passed} passed, {len(failed) - len(faults)} intended, {len(faults)} faults", end="")
    own = f", {left_out} fail with the suite's own classes too" if left_out else ""
    print(f" ({skipped} skipped{own})")
    for test, cause in faults.items():
        print(f"  FAULT {test.rpartition('::')[2]}: {cause}")
    for line in sorted(set(intended) - {line for found in reasons.values() for line in found}) if whole else []:
        print(f"  no test fails any more: {line}")
    return len(faults)


def intended_differences(path, variant):
    """Pattern of a test's name to the reason; after `[variant another]` the lines hold for these alone."""
    intended, section = {}, None
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[] ")
        elif line.strip() and not line.startswith("#") and (section is None or variant in section.split()):
            pattern, _, reason = line.partition(" | ")
            intended[pattern.strip()] = reason.strip()
    return intended


if __name__ == "__main__":
    sys.exit(main())
