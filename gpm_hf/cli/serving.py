"""`gpm-hf export` and `gpm-hf serve`."""

import argparse
from typing import Any

from gpm_hf.cli.common import hub_options
from gpm_hf.cli.outputs import writes


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser's."""
    forms = commands.add_parser("export", help="write a model for other engines").add_subparsers(
        dest="form", required=True
    )
    export = forms.add_parser(
        "sentence-transformers",
        help="for engines of embeddings: sentence-transformers, vLLM",
        description="Writes a preference model as a folder that sentence-transformers and vLLM load without this "
        "package: the backbone, the heads as one Dense module, and gpm_serving.json, which says what the numbers "
        "mean. An adapter is merged into its base.",
    )
    _model_arguments(export)
    export.add_argument("output", help="the folder to write")
    writes(export, lambda options: [options.output], folder=True)
    export.set_defaults(run=_export)

    serve = commands.add_parser(
        "serve",
        help="serve a model over HTTP: by vLLM where it is installed, else by a small server",
        description="Serves a preference model for remote:URL, for trainers and for other languages. Where vLLM is "
        "installed it is the engine, and its command is printed; --engine app is the small server, for one machine, "
        "which has the routes /score and /get_reward too. The key that clients need is in GPM_HF_API_KEY.",
    )
    _model_arguments(serve)
    serve.add_argument("--engine", choices=["vllm", "app"], help="default: vllm where it is installed")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--without-key", action="store_true", help="let other machines ask without a key")
    serve.add_argument("--print-command", action="store_true", help="with vLLM: print its command and do not run it")
    serve.add_argument(
        "--vllm-option", action="append", default=[], help='such as --vllm-option="--max-model-len=4096"'
    )
    serve.add_argument("--device", help="app: cpu, cuda, ... (default: a GPU where there is one)")
    serve.add_argument("--batch-tokens", type=int, help="app: tokens encoded at once (default: as of `gpm-hf score`)")
    serve.add_argument("--group-size", type=int, help="app: responses to a prompt that /get_reward waits for")
    serve.add_argument("--group-wait", type=float, default=60.0, help="app: seconds that it waits (default: 60)")
    serve.add_argument("--max-body-mb", type=float, default=8.0, help="app: the largest request (default: 8)")
    serve.add_argument("--policy", help="app: of /get_reward, whose chat template its prompts are rendered by")
    serve.set_defaults(run=_serve)


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="Hub id or folder of a preference model or its adapter, or an exported folder")
    parser.add_argument("--revision", help="branch, tag or commit of the model on the Hub")
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or float16 (default: as saved)")


def _export(options: argparse.Namespace) -> None:
    from transformers.utils import logging

    from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers

    logging.disable_progress_bar()
    settings = export_sentence_transformers(
        options.model, options.output, options.dtype, options.overwrite, **hub_options(options)
    )
    heads = f"embedding {settings.embedding_dim}, gate {settings.blocks}, reward {int(settings.reward_head)}"
    print(
        f"Written to {options.output}: {settings.backbone} in {settings.dtype}, {settings.output_size} numbers for a"
    )
    print(f"sequence ({heads}). Serve it by `gpm-hf serve {options.output}`.")


def _serve(options: argparse.Namespace) -> None:
    from transformers.utils import logging

    from gpm_hf.serving.run import serve_app, serve_vllm
    from gpm_hf.serving.vllm_command import vllm_is_installed

    logging.disable_progress_bar()
    engine = options.engine or ("vllm" if vllm_is_installed() else "app")
    where: dict[str, Any] = {"host": options.host, "port": options.port, "without_key": options.without_key}
    if engine == "vllm":
        if not vllm_is_installed() and not options.print_command:
            raise ImportError("vLLM is not installed: `pip install gpm-hf[vllm]`, or serve by --engine app.")
        _refuse(options, "device", "batch_tokens", "group_size", "policy")
        code = serve_vllm(
            options.model,
            **where,
            extra=options.vllm_option,
            only_print=options.print_command,
            dtype=options.dtype,
            **hub_options(options),
        )
        if code:
            raise OSError(f"vLLM ended with {code}: what it printed says why.")
        return
    if options.print_command or options.vllm_option:
        raise ValueError("--print-command and --vllm-option are of vLLM, and the engine is app.")
    limits: dict[str, Any] = {"group_size": options.group_size, "group_wait": options.group_wait}
    limits |= {"max_body_bytes": int(options.max_body_mb * 2**20)}
    serve_app(
        options.model,
        **where,
        limits=limits,
        batch_tokens=options.batch_tokens,
        policy=options.policy,
        device=options.device,
        dtype=options.dtype,
        **hub_options(options),
    )


def _refuse(options: argparse.Namespace, *names: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if vars(options)[name] is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: of the small server alone. Serve by --engine app.")
