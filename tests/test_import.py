"""`import gpm_hf` in a fresh interpreter: what it brings and what it must not."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ["trl", "peft", "datasets", "scipy", "matplotlib"]

PROGRAM = """
import json, sys

# transformers imports SciPy here where it is installed; what it brings itself is not ours to avoid.
import transformers.modeling_utils

before = {name.split(".")[0] for name in sys.modules}
import gpm_hf

modules = sorted({name.split(".")[0] for name in sys.modules} - before)
rooms = sorted(
    name for name, module in sys.modules.items() if name.startswith("gpm_hf.") and hasattr(module, "__path__")
)

from transformers import AutoConfig, AutoModel

config = AutoConfig.for_model("gpm", text_config={"model_type": "llama", "vocab_size": 8, "hidden_size": 8,
    "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}, embedding_dim=2)
model = AutoModel.from_config(config)
report = {
    "modules": modules,
    "rooms": rooms,
    "config": f"{type(config).__module__}.{type(config).__name__}",
    "model": f"{type(model).__module__}.{type(model).__name__}",
    "all": gpm_hf.__all__,
    "dir": dir(gpm_hf),
}
try:
    gpm_hf.no_such_name
except AttributeError as error:
    report["unknown"] = str(error)
report["missing"] = [name for name in gpm_hf.__all__ if not hasattr(gpm_hf, name)]
print("REPORT" + json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("import")
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.split("REPORT")[1])


@pytest.mark.parametrize("module", HEAVY)
def test_stays_light(report, module):
    """Counted from what `transformers.modeling_utils` has imported already."""
    assert module not in report["modules"]
    assert "gpm_hf" in report["modules"]


def test_loads_no_room_but_modeling(report):
    assert [name for name in report["rooms"] if not name.startswith("gpm_hf.modeling")] == []


def test_registers_the_auto_classes(report):
    assert report["config"] == "gpm_hf.modeling.configuration_gpm.GPMConfig"
    assert report["model"] == "gpm_hf.modeling.modeling_gpm.GPMForPreference"


def test_unknown_name_is_an_attribute_error(report):
    assert report["unknown"] == "module 'gpm_hf' has no attribute 'no_such_name'"


def test_every_public_name_resolves(report):
    assert report["missing"] == []


def test_dir_lists_the_public_names(report):
    assert set(report["all"]) <= set(report["dir"])


START_UP = """
import contextlib, io, sys

import gpm_hf

assert "torch" not in sys.modules and "transformers" not in sys.modules, "by the package"
from gpm_hf.cli import main

def helps(command):
    text = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(text):
        main([*command, "--help"])
    return text.getvalue()

def subcommands(text):
    choices = [line for line in text.splitlines() if line.startswith("  {")]
    return choices[0].strip(" {}").split(",") if choices else []

seen = []
for command in subcommands(helps([])):
    inner = subcommands(helps([command]))
    seen += [[command, name] for name in inner] or [[command]]
for command in seen:
    assert "usage: gpm-hf " + " ".join(command) in helps(command), command
heavy = [name for name in ("torch", "transformers", "datasets", "trl", "numpy") if name in sys.modules]
print("REPORT", len(seen), heavy)
"""


def test_no_help_imports_torch(tmp_path):
    """Of every command and subcommand, in one interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", START_UP], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    count, heavy = result.stdout.split("REPORT")[1].split(maxsplit=1)
    assert int(count) >= 20
    assert heavy.strip() == "[]"


def test_packages_of_extras_are_imported_where_they_are_used():
    root = Path(__file__).parents[1] / "gpm_hf"
    for path in root.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            extras = {name.split(".")[0] for name in names} & {
                "scipy",
                "matplotlib",
                "vllm",
                "deepspeed",
                "bitsandbytes",
            }
            assert not extras, f"{path.relative_to(root)} imports {extras} at its top: not everybody has them"
