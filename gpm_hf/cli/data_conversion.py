"""`gpm-hf data convert` and `gpm-hf data show`."""

import argparse
import textwrap
from pathlib import Path
from typing import Any

from gpm_hf.cli.outputs import writes
from gpm_hf.errors import UsageError
from gpm_hf.files import json_text, report_text, written_whole

_SHOWN = 3


def add_commands(commands: Any) -> None:
    """Adds `data` with its kinds."""
    parser = commands.add_parser(
        "data",
        help="convert preference data of any known form, and show it as a model reads it",
        description="Preference data as people have them: converted to what is trained on, and shown as tokens' text.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    convert = kinds.add_parser(
        "convert",
        help="convert to pairs or groups, telling what was read, kept and left out",
        description="Converts preference data to the pairs or groups that are trained on, and tells what was read, "
        "kept and left out, and why.",
        epilog="forms:\n" + textwrap.indent(_FORMS, "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _source_options(convert)
    convert.add_argument("output", help="the .jsonl file to write; with --test-size a folder")
    convert.add_argument(
        "--test-size", type=float, help="hold out this share of the prompts: writes train.jsonl and test.jsonl"
    )
    convert.add_argument("--seed", type=int, default=0, help="of the prompts to hold out (default: 0)")
    convert.add_argument("--format", choices=["text", "json"], default="text", help="of the report (default: text)")
    writes(convert, _outputs)
    convert.set_defaults(run=_convert)
    show = kinds.add_parser(
        "show",
        help="show rows as the text of the tokens that a model reads",
        description="Shows rows of preference data as the text of their tokens, by a model's own chat template.",
    )
    _source_options(show)
    show.add_argument(
        "--model", required=True, help="Hub id or folder of a language model or a preference model: its tokenizer"
    )
    show.add_argument("--limit", type=int, default=_SHOWN, help=f"so many rows (default: {_SHOWN})")
    show.set_defaults(run=_show)


def _source_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a data file (.jsonl, .json, .csv, .parquet, ...), or a data set of the Hub")
    parser.add_argument(
        "--columns", metavar="NEW=COLUMN,...", help="names of columns: prompt=instruction,chosen=good,rejected=bad"
    )
    parser.add_argument("--form", help="the form of the data (default: told by the columns)")
    parser.add_argument("--label", choices=["better", "safer"], default="better", help="of PKU-SafeRLHF")
    parser.add_argument(
        "--ties", choices=["keep", "drop"], default="keep", help="ties as the probability 1/2 (default), or left out"
    )
    parser.add_argument("--aspects", help="of UltraFeedback's ratings: those that count, separated by commas")
    parser.add_argument("--keep", metavar="COLUMN=VALUE", help="only rows with this value")
    parser.add_argument("--config", help="the Hub data set's configuration")
    parser.add_argument("--split", default="train", help="the data set's split (default: train)")


# Beside `gpm_hf.data.forms.FORMS`, which takes seconds to import; a test compares them.
_FORMS = """\
hh, ultrafeedback, ultrafeedback-binarized, helpsteer2, helpsteer3, nectar,
safe-rlhf, arena, table, alpaca-eval, chosen-reject, pairs, groups"""


def _outputs(options: argparse.Namespace) -> list[Path]:
    if options.test_size is None:
        return [Path(options.output)]
    return [Path(options.output, f"{name}.jsonl") for name in ("train", "test")]


def _read(options: argparse.Namespace) -> tuple[Any, Any]:
    from gpm_hf.data.conversion import convert, parse_columns
    from gpm_hf.data.forms import FormOptions
    from gpm_hf.data.splits import column_names, load_splits, split_of

    mapping = parse_columns(options.columns)
    aspects = tuple(one.strip() for one in (options.aspects or "").split(",") if one.strip()) or None
    form_options = FormOptions(label=options.label, ties=options.ties, aspects=aspects)
    rows = split_of(load_splits(options.input, options.config, options.keep), options.split)
    return convert(rows, options.input, column_names(rows), options.form, mapping, form_options)


def _convert(options: argparse.Namespace) -> None:
    from datasets import disable_progress_bars

    from gpm_hf.data.overlap import hold_out, overlap

    if options.test_size is None and not str(options.output).endswith(".jsonl"):
        raise UsageError(f"{options.output}: name a .jsonl file to write.")
    disable_progress_bars()
    rows, report = _read(options)
    parts, shared = [rows], None
    if options.test_size is not None:
        parts = list(hold_out(rows, options.test_size, options.seed))
        shared = overlap(*parts)
    paths = _outputs(options)
    for path, part in zip(paths, parts, strict=True):
        with written_whole(path) as file:
            for row in part:
                file.write(json_text({name: value for name, value in row.items() if value is not None}) + "\n")
    if options.format == "json":
        told = report.to_dict() | {"written": {str(path): len(part) for path, part in zip(paths, parts, strict=True)}}
        print(report_text(told | ({"overlap": vars(shared)} if shared else {})))
        return
    print(report)
    if shared:
        print(f"Held out by prompt. {shared}")
    for path, part in zip(paths, parts, strict=True):
        print(f"Written: {path}, {len(part)} rows.")


def _show(options: argparse.Namespace) -> None:
    from datasets import disable_progress_bars

    from gpm_hf.data.shown_rows import shown_row
    from gpm_hf.scoring import load_tokenizer

    disable_progress_bars()
    rows, report = _read(options)
    print(report)
    tokenizer, encoding = load_tokenizer(options.model), _encoding(options.model)
    for number, row in enumerate(rows.select(range(min(options.limit, len(rows)))), start=1):
        print(f"\n--- row {number}\n{shown_row(row, tokenizer, needs_prompt=False, **encoding)}")


def _encoding(model: str) -> dict[str, Any]:
    """How a preference model's texts become token ids; nothing for a language model, which says nothing of that."""
    from transformers import PretrainedConfig
    from transformers.utils import CONFIG_NAME

    from gpm_hf.modeling import GPMConfig

    if Path(model).is_dir() and not Path(model, CONFIG_NAME).is_file():
        return {}
    config, _ = PretrainedConfig.get_config_dict(model)
    if config.get("model_type") != GPMConfig.model_type:
        return {}
    return GPMConfig.from_dict(config).encoding_options
