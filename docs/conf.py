"""Sphinx: pages in Markdown, API pages out of docstrings. `make docs` builds them, warnings being errors."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpm_hf import __version__

project = "GPM-HF"
author = copyright = "The GPM-HF authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"GPM-HF {__version__}"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say types and shapes
default_role = "code"
napoleon_use_rtype = False
napoleon_use_ivar = True
# Pages link to files of the repository, which are no pages.
suppress_warnings = ["myst.xref_missing"]


def _from_markdown(app, what, name, obj, options, lines):
    """
    Docstrings are Hugging Face's Markdown: links [`~package.Name`] become code, fences code blocks, and the bars of an
    absolute value no substitution.
    """
    found, is_code = [], False
    for line in lines:
        if line.lstrip().startswith("```"):
            is_code = not is_code
            found += ["", f"{line[: len(line) - len(line.lstrip())]}.. code-block:: python", ""] if is_code else [""]
        elif is_code:
            found.append(f"    {line}")
        else:
            found.append(re.sub(r"\[`~?([^`]+)`\](\([^)]*\))?", r"``\1``", line).replace("|", r"\|"))
    lines[:] = found


def setup(app):
    app.connect("autodoc-process-docstring", _from_markdown, priority=400)  # before napoleon reads sections
