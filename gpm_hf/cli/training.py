"""`gpm-hf train`: the launch scripts through accelerate's launcher, from anywhere."""

import argparse
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPTS = "gpm_hf.scripts"
KINDS = {
    "reward": "a preference model (or a Bradley-Terry reward model)",
    "gpo": "a policy by online General Preference Optimization",
    "offline-gpo": "a policy on responses that are scored already",
    "iterate": "a policy in several iterations of sampling, scoring and training",
}


def add_commands(commands: Any) -> None:
    """Adds `train`."""
    parser = commands.add_parser(
        "train",
        help="train a preference model or a policy",
        description="Starts a launch script through accelerate's launcher. The launcher's options (--config_file, a "
        "file or one of ddp, fsdp2, zero2, zero3; --num_processes, ...) may stand anywhere among the script's own, "
        "which `gpm-hf train KIND --help` lists.",
        epilog="; ".join(f"{kind}: {what}" for kind, what in KINDS.items()),
    )
    parser.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of the launcher and of the script")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    launch(options.kind, options.options)


def launch(kind: str, options: list[str]) -> None:
    """
    Starts the launch script of one of `KINDS` with the options of a command line.

    Raises:
        SystemExit: with the script's own exit code where it failed (of several processes the first that did).
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    launcher, script = split_options(options)
    module = f"{SCRIPTS}.{kind.replace('-', '_')}"
    # Ctrl-C is the script's, which says how to go on; without a handler here the launcher would not wait for it.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Without --quiet, with which every failure is 1. A script has said why it ends: the launcher's words add nothing.
    try:
        launch_command(launch_command_parser().parse_args([*launcher, "--module", module, *script]))
    except subprocess.CalledProcessError as error:
        sys.exit(shell_code(error.returncode))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(shell_code(failure.exitcode))


def shell_code(code: int) -> int:
    """A process's exit code as shells say it: 128 and the signal's number where a signal ended it."""
    return code if code >= 0 else 128 - code


def split_options(options: list[str]) -> tuple[list[str], list[str]]:
    """
    The launcher's options and the script's. A configuration that is no file is one that the package ships.

    Raises:
        FileNotFoundError: a configuration that is neither.
    """
    from gpm_hf.templates import launcher_config

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config_file")
    names = ("num_processes", "num_machines", "machine_rank", "main_process_ip", "main_process_port")
    for name in (*names, "mixed_precision", "dynamo_backend"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--multi_gpu", action="store_true")
    found, script = parser.parse_known_args(options)
    launcher = []
    for name, value in vars(found).items():
        if name == "config_file" and value is not None and not Path(value).is_file():
            value = launcher_config(value)
        if value is True:
            launcher.append(f"--{name}")
        elif value:
            launcher += [f"--{name}", value]
    return launcher, script
