"""Starting a server: vLLM where it is installed, else our own."""

import os
import shlex
import signal
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gpm_hf.batch_tokens import default_batch_tokens
from gpm_hf.endpoints import KEY_VARIABLE
from gpm_hf.files import scratch_folder
from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers
from gpm_hf.scoring import SETTINGS_FILE, load_tokenizer
from gpm_hf.serving.vllm_command import vllm_command

_DRAIN_SECONDS = 30


def check_address(host: str, without_key: bool) -> str | None:
    """
    The key of the environment, `None` without one.

    Raises:
        ValueError: an address that other machines reach, and no key.
    """
    key = os.environ.get(KEY_VARIABLE) or None
    if key is None and not without_key and not _is_loopback(host):
        raise ValueError(
            f"{host} can be reached from other machines, and {KEY_VARIABLE} names no key that they would need. Set "
            "it, or say --without-key where nobody else reaches this network."
        )
    return key


def serve_app(
    source: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    without_key: bool = False,
    limits: dict[str, Any] | None = None,
    batch_tokens: int | None = None,
    policy: str | None = None,
    **options: Any,
) -> None:
    """
    Serves a model by our own small server until it is told to stop (SIGINT, SIGTERM): then it takes no more requests
    and answers those that it has, for 30 seconds at most.

    Args:
        source: see [`~gpm_hf.serving.loading.load_served`].
        host, port: where to listen.
        without_key: whether other machines may ask without a key.
        limits: of [`~gpm_hf.serving.app.Limits`].
        batch_tokens: encoded at once; by default what `gpm-hf score` takes.
        policy: Hub id or folder of the policy's tokenizer, for `/get_reward`.
        options: of [`~gpm_hf.serving.loading.load_served`].
    """
    try:
        import uvicorn

        from gpm_hf.serving.app import Limits, build_app
    except ImportError as error:
        raise ImportError(f"The server needs FastAPI and uvicorn: `pip install gpm-hf[serve]` ({error}).") from error
    from gpm_hf.serving.loading import load_served

    key = check_address(host, without_key)
    policy_tokenizer = load_tokenizer(policy) if policy else None
    served = load_served(source, **options)
    batch_tokens = batch_tokens or default_batch_tokens(served.model.device.type)
    app = build_app(served, key, Limits(max_batch_tokens=batch_tokens, **(limits or {})), policy_tokenizer)
    print(f"{served.settings.model} in {served.settings.dtype} at http://{host}:{port}", flush=True)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )


def serve_vllm(
    source: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    without_key: bool = False,
    extra: list[str] | None = None,
    only_print: bool = False,
    **options: Any,
) -> int:
    """
    Serves a model by vLLM until it is told to stop, which is passed on; one that is no export yet is exported into a
    temporary folder first. To be called in the main thread.

    Args:
        source: an exported folder; or a preference model.
        host, port, without_key: as in [`serve_app`]; the key reaches vLLM by its own variable.
        extra: options for vLLM.
        only_print: whether to print the command alone, of an exported folder.
        options: of [`~gpm_hf.hub.sentence_transformers_export.export_sentence_transformers`].

    Returns:
        vLLM's exit code, 0 where it was told to stop.
    """
    key = check_address(host, without_key)
    if (Path(source) / SETTINGS_FILE).is_file():
        return _run(vllm_command(source, host, port, extra), key, only_print)
    if only_print:
        raise ValueError(
            f"{source} is no exported folder, which vLLM needs: `gpm-hf export sentence-transformers {source} OUT`."
        )
    with scratch_folder("serve") as folder:
        export_sentence_transformers(source, folder / "export", **options)
        return _run(vllm_command(folder / "export", host, port, extra), key, only_print)


def _run(command: list[str], key: str | None, only_print: bool) -> int:
    print(shlex.join(command), flush=True)
    if only_print:
        return 0
    environment = {**os.environ, **({"VLLM_API_KEY": key} if key else {})}
    with subprocess.Popen(command, env=environment) as process:
        # Or vLLM would run on without whoever started it.
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            code = _wait(process)
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0 if code == -signal.SIGTERM else code


def _wait(process: subprocess.Popen) -> int:
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # Of the terminal, which has told vLLM too: it answers what it has.
            continue


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
