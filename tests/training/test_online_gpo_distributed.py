"""Online training in two processes on the CPU: groups that lie on both, DDP, LoRA, ZeRO, the launch script."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.online import build_policy, chat_prompts, skew
from tests.training.test_block_advantages import advantages_by_hand, blocks_by_hand

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def launch(arguments, command=None, **variables):
    """Runs two processes to their end."""
    if command is None:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
    run = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    # Under load an interpreter that has done its work is sometimes aborted by a thread while it exits (torch 2.13 with
    # gloo, so on a CPU only). What the processes wrote is checked by the tests.
    aborted = "terminate called without an active exception" in run.stderr
    assert run.returncode == 0 or aborted, run.stdout[-3000:] + run.stderr[-6000:]


def run_workers(folder, kind, **variables):
    launch(["-m", "tests.training.online_worker", str(folder), kind], **variables)
    return [json.loads(Path(folder, f"{kind}-{rank}.json").read_text()) for rank in range(2)]


def launch_script(script):
    """Runs a script in two processes and returns what each wrote."""
    launch([str(script), str(script.parent)], ACCELERATE_USE_CPU="true")
    return [json.loads((script.parent / f"{rank}.json").read_text()) for rank in range(2)]


def check_targets(results, scores_of, tolerance):
    """Targets of the gathered rollouts against a single process that has whole groups."""
    worst, straddling, rollouts = 0.0, 0, results[0]["rollouts"]
    assert rollouts == results[1]["rollouts"] and len(rollouts) == 2
    for rollout in rollouts:
        assert len(rollout) == 6
        for first in range(0, 6, 2):
            group = rollout[first : first + 2]
            assert group[0]["prompt"] == group[1]["prompt"]
            straddling += group[0]["rank"] != group[1]["rank"]
            scores = scores_of(group[0]["prompt"], [row["text"] for row in group])
            for row, expected in zip(group, scores.mean(-1).tolist()):
                worst = max(worst, abs(row["target"] - expected) / max(1.0, abs(expected)))
    print(f"s_hat against a single process: {worst:.1e}; groups on both processes: {straddling}")
    assert straddling == 2
    assert worst < tolerance


def check_ranks(results, wrapped):
    for result in results:
        assert result["world_size"] == 2 and result["wrapped"] == wrapped
        assert result["win_rates"] == results[0]["win_rates"] and len(result["win_rates"]) == 2
        assert all(0 < rate < 1 for rate in result["win_rates"])
        assert len(result["answers"]) == 3 and result["answers"] == results[0]["answers"]
        assert result["unscorable"] == [0.0, 0.0]
    assert results[0]["digest"] == results[1]["digest"]


def check_opponent_targets(results, tolerance):
    """As `check_targets`, against three responses of an opponent to each prompt; nine, so that one is there twice."""
    worst, straddling = 0.0, 0
    assert all(result["opponents"] == results[0]["opponents"] for result in results)
    assert all(result["rollouts"] == results[0]["rollouts"] for result in results)
    for rollout, opponents in zip(results[0]["rollouts"], results[0]["opponents"], strict=True):
        assert len(opponents) == 10 and len(rollout) == 6
        for index in range(3):
            group, theirs = rollout[2 * index : 2 * index + 2], opponents[3 * index : 3 * index + 3]
            straddling += group[0]["rank"] != group[1]["rank"]
            scores = gpm_scores(group[0]["prompt"], [row["text"] for row in group] + theirs)[:2, 2:]
            for row, expected in zip(group, scores.mean(-1).tolist()):
                worst = max(worst, abs(row["target"] - expected) / max(1.0, abs(expected)))
    print(f"s_hat against a single process: {worst:.1e}; groups on both processes: {straddling}")
    assert straddling == 2 and worst < tolerance


def gpm_scores(prompt, texts):
    return build_gpm(embedding_dim=4).double().preference_scores(build_tokenizer(), prompt, texts)


@pytest.mark.parametrize("kind", ["ddp", "lora", "callable"])
def test_two_processes(tmp_path, kind):
    results = run_workers(tmp_path, kind, ACCELERATE_USE_CPU="true")
    check_ranks(results, "DistributedDataParallel")
    if kind == "callable":

        def scores_of(prompt, texts):
            return torch.tensor([[skew(a, b) for b in texts] for a in texts])
    else:
        scores_of = gpm_scores
        assert results[0]["backbone"] == "LlamaModel"
    check_targets(results, scores_of, 1e-6)
    if kind == "ddp":
        start = sum(value.double().abs().sum().item() for value in build_policy().parameters())
        assert results[0]["sum"] != pytest.approx(start, rel=1e-6)


def test_a_scorer_of_each_kind_in_two_processes(tmp_path):
    """The matrices that the scorer gives elsewhere, also of groups on both processes; each group scored by one."""
    from gpm_hf.scoring import load_scorer
    from tests.scoring.models import save_every_kind
    from tests.training.test_preference_kinds import described

    save_every_kind(tmp_path)
    found = run_workers(tmp_path, "scorers", ACCELERATE_USE_CPU="true")
    assert len(found[0]) == 5
    for kind in found[0]:
        results = [one[kind] for one in found]
        assert [(one["world_size"], one["wrapped"]) for one in results] == [(2, "DistributedDataParallel")] * 2
        options = {} if kind.startswith("function") else {"device": "cpu", "dtype": "float64"}
        scorer = load_scorer(described(tmp_path, kind), **options)
        check_targets(results, lambda prompt, texts, scorer=scorer: scorer([prompt], [texts])[0], 1e-6)
        if kind in ("pair:pair", "judge:judge"):
            # Two rounds of three groups, of which each has two orders.
            assert [one["passes"] > 0 for one in results] == [True, True]
            assert sum(one["passes"] for one in results) == 2 * 3 * 2


@pytest.mark.parametrize("kind", ["stored", "mixture", "lora-mixture"])
def test_opponents_in_two_processes(tmp_path, kind):
    results = run_workers(tmp_path, kind, ACCELERATE_USE_CPU="true")
    check_ranks(results, "DistributedDataParallel")
    check_opponent_targets(results, 1e-6)
    if kind == "stored":
        for rollout, opponents in zip(results[0]["rollouts"], results[0]["opponents"]):
            numbers = [row["prompt"][0]["content"].split()[1].rstrip("?") for row in rollout[::2]]
            assert opponents[:9] == [f"{number} and {j}" for number in numbers for j in range(3)]
    else:
        assert results[0]["reference"] == ("NoneType" if kind.startswith("lora") else "LlamaForCausalLM")


def test_mixture_under_zero3(tmp_path):
    """Policy, reference and preference model are all split; the processes agree."""
    save_backbone(tmp_path / "policy")
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "gpm")
    build_tokenizer().save_pretrained(tmp_path / "gpm")
    results = run_workers(tmp_path, "zero3-mixture", DS_ACCELERATOR="cpu")
    check_ranks(results, "DeepSpeedEngine")
    assert results[0]["reference"] == results[0]["backbone"] == "DeepSpeedEngine"
    check_opponent_targets(results, 1e-5)


@pytest.mark.parametrize("stage", [2, 3])
def test_zero(tmp_path, stage):
    """The policy and the preference model under DeepSpeed; ZeRO-3 splits the backbones and not the heads."""
    save_backbone(tmp_path / "policy")
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "gpm")
    build_tokenizer().save_pretrained(tmp_path / "gpm")
    results = run_workers(tmp_path, f"zero{stage}", DS_ACCELERATOR="cpu")
    check_ranks(results, "DeepSpeedEngine")
    assert results[0]["backbone"] == ("DeepSpeedEngine" if stage == 3 else "LlamaModel")
    assert results[0]["head"] == "torch.float32"
    check_targets(results, gpm_scores, 1e-5)


def test_gpm_reward_in_two_processes(tmp_path):
    script = tmp_path / "reward.py"
    script.write_text(
        """
import json, sys
from accelerate import Accelerator
from tests.conftest import build_gpm, build_tokenizer
from gpm_hf.training.block_advantages import BlockMonitor
from gpm_hf.training.gpm_reward import GPMReward
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
rank = accelerator.process_index
# Group "p" lies on both processes, and the second one has an empty completion.
rows = [("p", "one"), ("q", "two"), ("q", "three"), ("p", "four"), ("p", "five"), ("q", "")][3 * rank : 3 * rank + 3]
reward = GPMReward(build_gpm(embedding_dim=4), build_tokenizer(), batch_size=1)
rewards = reward([row[0] for row in rows], [row[1] for row in rows])
by_blocks = GPMReward(build_gpm(embedding_dim=4), build_tokenizer(), blocks=BlockMonitor())
advantages = by_blocks([row[0] for row in rows], [row[1] for row in rows])
found = {"rewards": rewards, "advantages": advantages, "variances": by_blocks.signal.monitor.present}
open(f"{sys.argv[1]}/{rank}.json", "w").write(json.dumps(found))
accelerator.wait_for_everyone()
accelerator.end_training()
"""
    )
    found = launch_script(script)
    p = gpm_scores("p", ["one", "four", "five"]).mean(-1).tolist()
    q = gpm_scores("q", ["two", "three"]).mean(-1).tolist()
    first, second = (one["rewards"] for one in found)
    assert first == pytest.approx([p[0], q[0], q[1]], abs=1e-5)
    assert second[:2] == pytest.approx(p[1:], abs=1e-5) and second[2] is None
    # Advantages by blocks, whose groups lie on both; the monitors see the same.
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    p = advantages_by_hand(*blocks_by_hand(gpm, tokenizer, "p", ["one", "four", "five"]))
    q = advantages_by_hand(*blocks_by_hand(gpm, tokenizer, "q", ["two", "three"]))
    first, second = (one["advantages"] for one in found)
    assert [*first, *second[:2]] == pytest.approx([p[0], *q, *p[1:]], abs=2e-3) and second[2] is None
    assert found[0]["variances"] == found[1]["variances"] and min(found[0]["variances"]) > 0


def test_reward_model_in_two_processes(tmp_path):
    """The rewards of one process, by GPMReward and as a reward function, whatever each process holds."""
    from gpm_hf.scoring import RewardModelScorer
    from tests.scoring.models import build_llama_classifier

    script = tmp_path / "reward.py"
    script.write_text(
        """
import json, sys
from accelerate import Accelerator
from tests.conftest import build_tokenizer
from tests.scoring.models import build_llama_classifier
from gpm_hf.scoring import RewardModelScorer
from gpm_hf.training.gpm_reward import GPMReward
from gpm_hf.training.preference_signal import load_preference_signal
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
rank = accelerator.process_index
# The second process has nothing to score.
rows = [("p", "one"), ("p", "two, three and four"), ("p", "five"), ("p", ""), ("p", " "), ("p", "")]
prompts, completions = zip(*rows[3 * rank : 3 * rank + 3])
scorer = RewardModelScorer(build_llama_classifier(), build_tokenizer(), batch_size=1)
rewards = GPMReward(scorer)(list(prompts), list(completions))
signal = load_preference_signal(scorer)
signal.prepare(accelerator)
plain = signal.reward_function()(list(prompts), list(completions))
open(f"{sys.argv[1]}/{rank}.json", "w").write(json.dumps([rewards, plain]))
accelerator.wait_for_everyone()
accelerator.end_training()
"""
    )
    found = launch_script(script)
    scorer = RewardModelScorer(build_llama_classifier(), build_tokenizer())
    (scores,) = scorer(["p"], [["one", "two, three and four", "five"]])
    assert found[0][0] == pytest.approx(scores.mean(-1).tolist(), abs=1e-5)
    first, second, third = found[0][1]
    assert [first - second, second - third] == pytest.approx([scores[0, 1].item(), scores[1, 2].item()], abs=1e-5)
    assert found[1] == [[None] * 3, [None] * 3]


LONG_PROMPT = "Which of them is best? " * 8
FSDP_SCRIPT = """
import json, sys, types
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from tests.conftest import build_gpm, build_tokenizer
from gpm_hf.training.preference_signal import load_preference_signal
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
# Accelerate itself has no FSDP on a CPU; torch has.
fsdp = types.SimpleNamespace(
    distributed_type=DistributedType.FSDP, device=torch.device("cpu"), torch_device_mesh=None,
    state=types.SimpleNamespace(fsdp_plugin=FullyShardedDataParallelPlugin(fsdp_version=2)),
)
signal = load_preference_signal(build_gpm(embedding_dim=4), build_tokenizer(), batch_size=1)
signal.prepare(fsdp)
model = signal.scorer.model
weight = model.model.embed_tokens.weight
assert type(model.model).__name__ == "FSDPLlamaModel" and weight.to_local().shape[0] * 2 == weight.shape[0]
assert model.embedding_head.weight.shape == (4, 32)
rank = accelerator.process_index
# One process has an empty completion and so fewer rows: the forwards, which collect weights from both, must not run
# dry.
texts = [["one", "", ""], ["four", "five", "six"]][rank]
found = []
for prompt in ("p", "Which of them is best? " * 8):
    tokens = []
    count = lambda module, inputs: tokens.append(inputs[0].numel())
    hook = model.get_input_embeddings().register_forward_pre_hook(count)
    (scores,) = signal([prompt] * 3, texts, [[0, 1, 2, 3, 4, 5]])
    hook.remove()
    found.append({"scores": scores.nan_to_num(99.0).tolist(), "tokens": tokens})
open(f"{sys.argv[1]}/{rank}.json", "w").write(json.dumps(found))
accelerator.wait_for_everyone()
accelerator.end_training()
"""


def check_sharded(first, second, scores_of):
    """Both processes have the scores of the whole model, after as many forwards."""
    kept = [0, 3, 4, 5]
    for prompt, one, other in zip(("p", LONG_PROMPT), first, second, strict=True):
        assert one["scores"] == other["scores"] and len(one["tokens"]) == len(other["tokens"])
        scores = torch.tensor(one["scores"])
        expected = scores_of(prompt, ["one", "four", "five", "six"])
        torch.testing.assert_close(scores[kept][:, kept].to(expected), expected, rtol=1e-4, atol=1e-4)
        assert (scores[[1, 2]] == 99.0).all()


def test_fsdp2_preference_model(tmp_path):
    """The backbone is sharded and the heads are not; the scores are those of the whole model."""
    script = tmp_path / "fsdp.py"
    script.write_text(FSDP_SCRIPT)
    first, second = launch_script(script)
    check_sharded(first, second, gpm_scores)
    # The second process encodes the long prompt once, then three answers; the first has one answer, and then nothing.
    prompt = [{"role": "user", "content": LONG_PROMPT}]
    length = len(build_tokenizer().apply_chat_template(prompt, add_generation_prompt=True)["input_ids"])
    assert second[1]["tokens"][0] == length and sum(second[1]["tokens"]) < 2 * length
    assert length < first[1]["tokens"][0] and first[1]["tokens"][1:] == [1, 1, 1]


def test_fsdp2_reward_model(tmp_path):
    """Sharded whole, with an empty completion on one process; the differences are those of the model in one piece."""
    from gpm_hf.scoring import RewardModelScorer
    from tests.scoring.models import build_llama_classifier

    text = FSDP_SCRIPT.replace("build_gpm(embedding_dim=4)", "build()")
    start, end = text.index("weight = "), text.index("rank = ")
    text = (
        "from tests.scoring.models import build_llama_classifier as build\n"
        + text[:start]
        + 'assert type(model).__name__ == "FSDPLlamaForSequenceClassification"\n'
        + text[end:]
    )
    script = tmp_path / "fsdp.py"
    script.write_text(text)
    scorer = RewardModelScorer(build_llama_classifier(), build_tokenizer())
    check_sharded(*launch_script(script), lambda prompt, texts: scorer([prompt], [texts])[0])


CONFIG = """
model_name_or_path: {folder}/policy
preference_model_name_or_path: {folder}/gpm
dataset_name: {folder}/prompts.jsonl
reward_funcs: [tests.training.online.report_process]
output_dir: {folder}/run
max_steps: 4
num_generations: 2
per_device_train_batch_size: 3
max_completion_length: 6
logging_steps: 1
win_rate_prompts: 3
win_rate_steps: 2
report_to: none
learning_rate: 1.0e-3
save_strategy: steps
save_steps: 2
bf16: false
use_cpu: true
"""
CPU = {"ddp": {"ACCELERATE_USE_CPU": "true"}, "zero2": {"DS_ACCELERATOR": "cpu"}, "zero3": {"DS_ACCELERATOR": "cpu"}}


@pytest.mark.parametrize("name", CPU)
def test_launch_script(tmp_path, name):
    """`accelerate launch` with each configuration that a CPU can run; DDP also with LoRA, and resumed."""
    save_backbone(tmp_path / "policy")
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "gpm")
    build_tokenizer().save_pretrained(tmp_path / "gpm")
    chat_prompts(8).to_json(tmp_path / "prompts.jsonl")
    (tmp_path / "run.yaml").write_text(CONFIG.format(folder=tmp_path))
    report = tmp_path / "report.txt"
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", f"trainers/configs/{name}.yaml"]
    accelerate += ["--num_processes", "2", "--mixed_precision", "no", "--main_process_port", free_port()]
    arguments = ["trainers/gpo.py", "--config", str(tmp_path / "run.yaml")]
    if name == "ddp":
        arguments += ["--use_peft", "--lora_target_modules", "q_proj", "v_proj"]
    launch(arguments, accelerate, GPM_HF_REPORT=str(report), **CPU[name])
    kind = "MULTI_CPU" if name == "ddp" else "DEEPSPEED"
    assert set(report.read_text().splitlines()) == {f"{kind} 2 0", f"{kind} 2 1"}
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "win_rate" in entry] == [2, 4]
    weights = tmp_path / "run" / ("adapter_model.safetensors" if name == "ddp" else "model.safetensors")
    assert weights.exists() and (tmp_path / "run" / "README.md").exists()
    if name == "ddp":
        from safetensors.torch import load_file

        whole = load_file(weights)
        weights.unlink()
        accelerate[-1] = free_port()
        arguments += ["--resume_from_checkpoint", str(tmp_path / "run" / "checkpoint-2")]
        launch(arguments, accelerate, GPM_HF_REPORT=str(report), **CPU[name])
        resumed = load_file(weights)
        assert whole.keys() == resumed.keys() and len(whole) == 8
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
