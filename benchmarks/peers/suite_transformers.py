"""transformers' ModelTesterMixin on a preference model."""

import sys
import types
from pathlib import Path

TESTS = [str(Path(__file__).parent / "model_tests.py")]
VARIANTS = {"gpm": TESTS, "bradley_terry": TESTS}
COMPARED = False


def prepare(variant, own):
    # A source distribution has the common tests but not these two, of exports and of generation.
    for name, mixin in (
        ("exporters.test_export", "ExportTesterMixin"),
        ("generation.test_utils", "GenerationTesterMixin"),
    ):
        if not Path("tests", *name.split(".")).with_suffix(".py").exists():
            module = types.ModuleType(f"tests.{name}")
            setattr(module, mixin, type(mixin, (), {}))
            sys.modules[f"tests.{name}"] = module
            sys.modules.setdefault(f"tests.{name.split('.')[0]}", types.ModuleType(f"tests.{name.split('.')[0]}"))
