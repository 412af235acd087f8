"""
A preference model behind HTTP: our own small server ([`gpm_hf.serving.app`], which needs FastAPI), and vLLM's command
line. What asks a server is [`RemoteScorer`].
"""

from gpm_hf.scoring import RemoteScorer
from gpm_hf.serving.loading import ServedModel, load_served
from gpm_hf.serving.run import serve_app, serve_vllm
from gpm_hf.serving.vllm_command import vllm_command

__all__ = ["RemoteScorer", "ServedModel", "load_served", "serve_app", "serve_vllm", "vllm_command"]
