"""vLLM as the engine: the command that serves an exported folder so that its numbers are the model's."""

import importlib.util
import sys
from pathlib import Path

from gpm_hf.scoring import ServedHeads


def vllm_is_installed() -> bool:
    """Whether this environment has vLLM."""
    return importlib.util.find_spec("vllm") is not None


def vllm_command(
    folder: str | Path, host: str = "127.0.0.1", port: int = 8000, extra: list[str] | None = None
) -> list[str]:
    """
    The command. The type is named, because vLLM's "auto" makes float16 of float32; prompts are cached, because all
    responses to one share it.

    Args:
        folder: what `gpm-hf export sentence-transformers` wrote.
        host, port: where to listen.
        extra: options for vLLM, such as `--max-model-len 4096`.
    """
    settings = ServedHeads.from_folder(folder)
    return [
        # `vllm serve` is the same, but asks for a distribution called "vllm", which the one for CPUs is not.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", settings.model),
        *("--runner", "pooling"),
        *("--dtype", settings.dtype),
        "--enable-prefix-caching",
        *("--host", host, "--port", str(port)),
        *(extra or []),
    ]
