"""Exported models in real vLLM, on a CPU too, in an environment that has it (`make test-vllm`)."""

import contextlib
import os
import re
import subprocess
from importlib.util import find_spec

import pytest
import requests
import torch

from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers
from gpm_hf.modeling import GPMConfig, GPMForPreference, condorcet_winner
from gpm_hf.scoring import load_scorer
from gpm_hf.serving import vllm_command
from tests.conftest import backbone_config, build_tokenizer, draw_gate
from tests.serving.groups import KINDS, assert_agree, groups_of_eight
from tests.serving.servers import LONGEST_LIFE, free_port, wait_until_ready

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]


def save_for_vllm(folder, backbone, dtype="float32", **options):
    """vLLM's attention on a CPU wants heads of 32 dimensions."""
    sizes = {"hidden_size": 64, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    config = backbone_config(backbone, **sizes, max_position_embeddings=1024)
    model = draw_gate(GPMForPreference(GPMConfig(text_config=config, **options)).eval())
    model.save_pretrained(folder / "gpm")
    build_tokenizer().save_pretrained(folder / "gpm")
    export_sentence_transformers(str(folder / "gpm"), folder / "out", dtype)
    return model


@contextlib.contextmanager
def vllm(folder, *options):
    port = free_port()
    extra = ["--enforce-eager", "--max-num-seqs", "32", *options]
    # Where the tests are killed it ends by itself.
    command = ["timeout", str(LONGEST_LIFE), *vllm_command(folder, port=port, extra=extra)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with open(folder.parent / "vllm.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process, seconds=LONGEST_LIFE, route="/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(20)


def prefix_hits(url):
    text = requests.get(url + "/metrics", timeout=30).text
    return sum(float(value) for value in re.findall(r"(?m)^vllm:prefix_cache_hits_total\S* (\S+)$", text))


# Each starts a server, some 30 CPU seconds.
@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("llama", "gate"),
        ("llama", "no-gate"),
        ("llama", "bradley-terry"),
        ("qwen3", "reward"),
        ("gemma3_text", "gate"),
    ],
)
def test_log_odds_are_the_models(backbone, kind, tmp_path):
    model = save_for_vllm(tmp_path, backbone, **KINDS[kind])
    prompts, groups = groups_of_eight(8, prompt_words=80)
    with vllm(tmp_path / "out") as url:
        scorer = load_scorer(f"remote:{url}")
        largest = assert_agree(scorer(prompts, groups), model.preference_scores(build_tokenizer(), prompts, groups))
        print(f"{backbone} {kind}: largest error {largest:.1e}, {prefix_hits(url):.0f} tokens from the prefix cache")
        if (backbone, kind) == ("llama", "gate"):
            # Prompts of some 250 tokens: of each response the first block of 128 is found again.
            assert prefix_hits(url) >= 8 * 8 * 128


def test_bfloat16_is_near_the_model_in_float32(tmp_path):
    """Whose order of close responses it does not keep; 0.74 was seen."""
    model = save_for_vllm(tmp_path, "llama", "bfloat16", **KINDS["gate"])
    prompts, groups = groups_of_eight(8, prompt_words=80)
    with vllm(tmp_path / "out") as url:
        scorer = load_scorer(f"remote:{url}")
        found = torch.stack(scorer(prompts, groups))
    expected = torch.stack(model.preference_scores(build_tokenizer(), prompts, groups))
    largest = float((found - expected).abs().max())
    same = int((condorcet_winner(found) == condorcet_winner(expected)).sum())
    print(f"llama gate in bfloat16: largest error {largest:.2g}, the winner of {same} of 8 groups")
    assert 5e-4 < largest < 4
