"""A trainer samples from the policy that it trains, and reads its log-probabilities, whatever kind of policy it is."""

import math
import types

import peft
import pytest
import torch
import transformers
from datasets import Dataset
from packaging.version import Version

from gpm_hf.training import OfflineGPOConfig, OfflineGPOTrainer
from tests.conftest import build_tokenizer
from tests.generation.policies import build, greedy, logits
from tests.training import test_offline_gpo
from tests.training.online import build_policy, make_trainer

RENAMED = Version(transformers.__version__) >= Version("5.24")
ROWS = [{"prompt": [{"role": "user", "content": text}]} for text in ("How?", "A longer one about bread and ovens?")]
PADS_AFTER_VIRTUAL_TOKENS = ("prompt", "p-tuning")


def trained(folder, policy, **options):
    """A step of training on greedy answers, and what was generated for it."""
    seen = []
    trainer = make_trainer(
        folder,
        policy,
        prompts=Dataset.from_list(ROWS),
        **{"max_steps": 1, "learning_rate": 0.0, "generation_kwargs": {"do_sample": False}, **options},
    )
    inner = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(inner(inputs)) or seen[-1]
    trainer.train()
    return trainer, seen[0]


def check_own(trainer, batch, stop):
    policy = trainer.model.eval()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    with torch.no_grad():
        read, *_ = trainer._get_per_token_logps_and_entropies(policy, ids, mask, width, compute_entropy=True)
    for row in range(len(ids)):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()].tolist()
        assert answer == greedy(policy, prompt, 6, stop)
        own = logits(policy, prompt + answer)[len(prompt) - 1 : -1].log_softmax(-1)
        own = own.gather(1, torch.tensor(answer)[:, None])[:, 0]
        torch.testing.assert_close(read[row, : len(answer)], own, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "kind",
    [
        *("learned positions", "custom", "prefix", "prompt", "shadow"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("plain", "remote", "lora", "p-tuning")),
    ],
)
def test_samples_and_log_probs_are_the_policys_own(kind, tmp_path):
    """Two prompts of different lengths in a batch, or one at a time where padding would change what is said."""
    policy, tokenizer = build(kind, tmp_path / "policy"), build_tokenizer()
    together = {"per_device_train_batch_size": 8}
    if RENAMED and kind == "prefix":
        with pytest.raises(ValueError, match=r"PREFIX_TUNING adapter .* is not from the policy"):
            trained(tmp_path, policy, **together)
        return
    if kind in PADS_AFTER_VIRTUAL_TOKENS:
        with pytest.raises(ValueError, match=r"prompts of 15 to 31 tokens, and the policy says something else"):
            trained(tmp_path, policy, **together)
        together = {}
    check_own(*trained(tmp_path, policy, **together), tokenizer.eos_token_id)


@pytest.mark.parametrize("opponent", ["reference", "mixture"])
@pytest.mark.parametrize("kind", ["lora", "custom", "learned positions"])
def test_opponents_answer_as_they_would(kind, opponent, tmp_path):
    """Before the first step the reference is the policy, or its base: whatever the mixture, it is known."""
    policy, tokenizer = build(kind, tmp_path / "policy").eval(), build_tokenizer()
    options = {"peft_config": None, "opponent": opponent, "max_steps": 1, "generation_kwargs": {}}
    if kind == "lora":
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.data.zero_()
    trainer = make_trainer(tmp_path, policy, prompts=Dataset.from_list(ROWS), temperature=1e-4, **options)
    heard = []
    inner = trainer.opponent.completions
    trainer.opponent.completions = lambda *args: heard.append((args[1], inner(*args))) or heard[-1][1]
    before = [
        greedy(policy, tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"], 6, 1)
        for row in ROWS
    ]
    trainer.train()
    for prompts, (_, token_ids) in heard:
        for prompt, ids in zip(prompts, token_ids):
            assert ids == before[[row["prompt"] for row in ROWS].index(prompt)]
    assert (trainer.generation_config.use_cache is False) == (RENAMED and kind == "custom")


def test_an_adapter_that_changes_nothing_yet_is_looked_at_again(tmp_path):
    """New Shadow adapters are the base model; what `generate` makes of them shows once they are trained."""
    torch.manual_seed(1)
    policy = peft.get_peft_model(build_policy(), peft.ShadowConfig(task_type="CAUSAL_LM"))
    sampling = make_trainer(tmp_path, policy).sampling
    looks, look = [], sampling._road
    sampling._road = lambda player: looks.append(look(player)) or looks[-1]
    sampling.look()
    assert sampling.road.use_cache
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "shadow_up" in name:
                weight.normal_(std=0.3)
    for _ in range(7):
        sampling.look()
    assert sampling.road.use_cache is not RENAMED
    assert len(looks) == 4  # the first, second, fourth and eighth time


@pytest.mark.parametrize("kind", ["online", "offline"])
def test_adapters_that_cannot_be_trained_are_refused_in_words(kind, tmp_path):
    def make(policy, **options):
        if kind == "online":
            return make_trainer(tmp_path, policy, **options)
        rows = test_offline_gpo.selected(test_offline_gpo.scored_rows(), "mean")
        args = OfflineGPOConfig(str(tmp_path), **test_offline_gpo.OPTIONS)
        return OfflineGPOTrainer(policy, args, rows, processing_class=build_tokenizer(), **options)

    with pytest.raises(ValueError, match=r"^CPTConfig: such an adapter computes its own loss"):
        make(build("cpt", tmp_path))
    config = peft.CPTConfig(cpt_token_ids=[5], cpt_mask=[1], cpt_tokens_type_mask=[1], task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match=r"^CPTConfig: such an adapter computes its own loss"):
        make(build_policy(), peft_config=config)
    with pytest.raises(ValueError, match=r'^PromptTuningConfig needs to know its task: .*task_type="CAUSAL_LM"'):
        make(build_policy(), peft_config=peft.PromptTuningConfig(num_virtual_tokens=3))


def test_vllms_log_probs_are_compared_up_to_rounding_and_truncation(tmp_path):
    """By hand: -log(top_p) at most is what a kept part of the vocabulary adds; more, or less, is another policy."""
    from gpm_hf.training.sampling_guard import log_prob_difference

    own = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -9.0, -9.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]]).bool()
    shift = torch.tensor([[0.0, 0.1, 0.3], [-0.2, 5.0, torch.nan]])
    for truncation, expected in ((0.0, 0.01 + 0.09 + 0.04), (0.1, 0.04 + 0.04), (math.inf, 0.04)):
        found = log_prob_difference(own + shift, own, mask, truncation)
        assert found.item() == pytest.approx(math.sqrt(expected / 4), abs=1e-6)
    shift[0, 0] = torch.nan
    assert log_prob_difference(own + shift, own, mask, 0.0).item() == pytest.approx(math.sqrt(0.14 / 3), abs=1e-6)
    assert log_prob_difference(own, own, torch.zeros_like(mask), 0.0).item() == 0.0


def test_what_vllm_samples_must_be_the_policys(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.use_vllm, trainer.vllm_mode, trainer.sampling.settings = True, "server", None
    own = -torch.rand(4, 6) - 1
    output = {"old_per_token_logps": own, "completion_mask": torch.ones(4, 6, dtype=torch.long)}
    trainer.sampling.compare({**output, "sampling_per_token_logps": own + 0.1})
    with pytest.raises(
        ValueError, match=r"from something else than the policy: .* by 2 nats .* up to 0\.9 is rounding"
    ):
        trainer.sampling.compare({**output, "sampling_per_token_logps": own - 2})
    # Elsewhere a server computes in a type that nobody knows; here the engine's is known.
    config = types.SimpleNamespace(dtype=torch.float32, quantization=None, max_model_len=64)
    trainer.vllm_mode = "colocate"
    trainer.vllm_generation = types.SimpleNamespace(llm=types.SimpleNamespace(model_config=config))
    with pytest.raises(ValueError, match=r"up to 0\.06 is rounding"):
        trainer.sampling.compare({**output, "sampling_per_token_logps": own + 0.1})
    with pytest.raises(
        ValueError, match=r"59 tokens; with max_completion_length=6 that is more than .* context of 64"
    ):
        trainer.sampling.check_lengths([[1] * 59])
    trainer.sampling.check_lengths([[1] * 58])
    trainer.args.repetition_penalty = 1.1
    with pytest.warns(UserWarning, match="not compared with the policy, because repetition_penalty"):
        trainer.sampling.compare({**output, "sampling_per_token_logps": own - 2})
    trainer.use_vllm = False
    with pytest.warns(UserWarning, match="because transformers' continuous batching gives no log-probabilities"):
        trainer.sampling.compare(output)


def test_an_engine_in_the_trainers_process_computes_as_the_trainer_does(monkeypatch):
    """TRL asks for an engine without a type, and vLLM would take bfloat16 for a policy in float32."""
    from trl.generation import vllm_generation

    from gpm_hf.training import vllm_engine

    asked = []

    def engine(**options):
        weights = [torch.ones(0 if options.get("enforce_eager") else 2)]
        runner = types.SimpleNamespace(model=types.SimpleNamespace(parameters=lambda: weights))
        executor = types.SimpleNamespace(driver_worker=types.SimpleNamespace(model_runner=runner))
        asked.append(options)
        return types.SimpleNamespace(llm_engine=types.SimpleNamespace(model_executor=executor))

    monkeypatch.setattr(vllm_generation, "LLM", engine, raising=False)
    monkeypatch.setattr(vllm_engine, "is_vllm_available", lambda: True)
    device = types.SimpleNamespace(device=torch.device("cpu"))
    trainer = types.SimpleNamespace(model=types.SimpleNamespace(dtype=torch.float32), accelerator=device)

    def start(quantization=None, **options):
        args = {"use_vllm": True, "vllm_mode": "colocate", "bf16": False, "fp16": False, "vllm_engine_kwargs": None}
        with vllm_engine.engine_options(trainer, types.SimpleNamespace(**args | options)):
            vllm_generation.LLM(model="name", quantization=quantization, seed=0)
        assert vllm_generation.LLM is engine
        return asked[-1]

    asked_for = {"model": "name", "quantization": None, "seed": 0}
    assert start() == {**asked_for, "dtype": torch.float32}
    assert start(bf16=True) == {**asked_for, "dtype": torch.bfloat16}
    given = {"dtype": "float16", "seed": 3}
    assert start(vllm_engine_kwargs=given) == {**asked_for, **given}
    assert start("bitsandbytes") == {**asked_for, "quantization": "bitsandbytes"}
    assert start(vllm_mode="server") == asked_for
    with pytest.raises(ValueError, match="vLLM has packed this policy's weights for the CPU"):
        start(vllm_engine_kwargs={"enforce_eager": True})
