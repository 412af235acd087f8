"""Online GPO on samples of vLLM itself, in the trainer's process."""

from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch

from tests.generation.templates import template_policy, template_tokenizer
from tests.training.online import OPTIONS, chat_prompts, logged, prefer_by_text

pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]

SIZES = {"hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
SIZES |= {"initializer_range": 0.1}
BY_VLLM = {
    "use_vllm": True,
    "vllm_mode": "colocate",
    "vllm_max_model_length": 256,
    "vllm_gpu_memory_utilization": 0.02,
    "vllm_engine_kwargs": {"enforce_eager": True, "kv_cache_memory_bytes": 2**26},
    "max_completion_length": 12,
    "learning_rate": 1e-2,
}


@pytest.fixture
def linear_by_torch(monkeypatch):
    """On a CPU vLLM packs weights and lets go of them; a GPU's engine keeps them, as this one does."""
    from vllm import _custom_ops

    monkeypatch.setattr(_custom_ops, "_supports_onednn", False)


def make_trainer(folder, **options):
    from transformers import AutoModelForCausalLM

    from gpm_hf.training.online_gpo_config import OnlineGPOConfig
    from gpm_hf.training.online_gpo_trainer import OnlineGPOTrainer

    tokenizer = template_tokenizer("qwen3")
    template_policy(tokenizer, **SIZES).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy")
    args = OnlineGPOConfig(str(folder / "run"), **{**OPTIONS, **BY_VLLM, **options})
    return OnlineGPOTrainer(policy, prefer_by_text, args, chat_prompts(), processing_class=tokenizer)


def own_log_probs(policy, inputs):
    """Of each completion's tokens, by plain forwards without padding."""
    found = torch.zeros_like(inputs["old_per_token_logps"])
    for row in range(len(found)):
        prompt = inputs["prompt_ids"][row][inputs["prompt_mask"][row].bool()]
        ids = inputs["completion_ids"][row][inputs["completion_mask"][row].bool()]
        with torch.no_grad():
            logits = policy(torch.cat([prompt, ids])[None]).logits[0, len(prompt) - 1 : -1]
        found[row, : len(ids)] = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    return found


def test_the_loss_of_every_step_by_hand(tmp_path, linear_by_torch):
    """
    Two generations of two steps each. The engine is the trainer's in float32; the ratio is to the policy as it was
    when it sampled, by its own forward; each step of a generation has the weights pi_t / sampled of that generation.
    """
    trainer = make_trainer(tmp_path, max_steps=4, num_iterations=2)
    assert trainer.vllm_generation.llm.model_config.dtype == torch.float32
    inner, seen, sampled_by = trainer._compute_loss, [], {}

    def record(model, inputs):
        step, mask = trainer.state.global_step, inputs["completion_mask"]
        policy = trainer.accelerator.unwrap_model(model)
        now = own_log_probs(policy, inputs)
        if step % 2 == 0:
            sampled_by[step // 2] = now
        then = sampled_by[step // 2]
        loss = inner(model, inputs)
        torch.testing.assert_close(inputs["old_per_token_logps"] * mask, then * mask, atol=1e-4, rtol=0)
        torch.testing.assert_close(inputs["sampling_per_token_logps"] * mask, then * mask, atol=1e-4, rtol=0)
        weights = ((inputs["old_per_token_logps"] - inputs["sampling_per_token_logps"]) * mask).sum(1).exp()
        log_ratios = ((now - then) * mask).sum(1)
        by_hand = (weights * (0.5 * log_ratios - inputs["targets"]) ** 2).mean()
        seen.append((loss.item(), by_hand.item(), log_ratios.abs().max().item(), weights))
        return loss

    trainer._compute_loss = record
    trainer.train()
    assert len(seen) == 4
    for loss, by_hand, _, _ in seen:
        assert loss == pytest.approx(by_hand, rel=1e-3)
    # The first step of a generation starts where it sampled, the second does not; the weights stay.
    assert [moved > 1e-4 for *_, moved, _ in seen] == [False, True, False, True]
    for first, second in (seen[:2], seen[2:]):
        assert torch.equal(first[3], second[3])
    assert max(logged(trainer, "sampling/sampling_logp_difference/max")) < 1e-4


def test_an_engine_without_the_policys_weights_is_refused(tmp_path, linear_by_torch):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.vllm_generation.sync_weights = lambda: None
    with torch.no_grad():
        for weight in trainer.model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.5)
    with pytest.raises(ValueError, match=r"vLLM samples from something else than the policy: .* nats"):
        trainer.train()


def test_what_a_cpus_engine_cannot_do_is_said(tmp_path):
    """And a prompt that leaves no room for its completion is refused, instead of a cut without a word."""
    if torch.cuda.is_available():
        pytest.skip("a GPU's engine keeps its weights")
    with pytest.raises(ValueError, match="vllm_mode='colocate' on a CPU: vLLM has packed this policy's weights"):
        make_trainer(tmp_path)
    from vllm import _custom_ops

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_custom_ops, "_supports_onednn", False)
        trainer = make_trainer(tmp_path, max_steps=1, max_completion_length=250)
        with pytest.raises(ValueError, match=r"max_completion_length=250 that is more than .* context of 256"):
            trainer.train()


def test_what_is_trained_on_a_cpu_cannot_reach_a_server():
    """TRL's own sentence, which ends a training with `vllm_mode="server"` before its first step."""
    from trl.generation.vllm_client import VLLMClient

    server = {"weight_transfer_config": {"backend": "nccl"}}
    client = SimpleNamespace(get_server_info=lambda: server, get_world_size=lambda: 1, group_port=0, base_url="here")
    with pytest.raises(NotImplementedError, match="NCCL weight-transfer engine, which needs a CUDA device"):
        VLLMClient.init_communicator(client, device="cpu")
