"""Of pytest: sets the stage for a suite before its tests are read, and writes down how each of them ends."""

import importlib
import json
import os

SUITE = importlib.import_module(f"suite_{os.environ['PEERS_SUITE']}")


def pytest_configure(config):
    SUITE.prepare(os.environ["PEERS_VARIANT"], own=bool(os.environ["PEERS_OWN"]))


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        row = {"test": report.nodeid, "outcome": report.outcome, "cause": ""}
        if report.outcome == "failed":
            row["cause"] = " ".join(report.longreprtext.splitlines()[-1].split())[:300]
        with open(os.environ["PEERS_REPORT"], "a") as file:
            file.write(json.dumps(row) + "\n")
