"""Advantages by blocks and their monitor: formulas written out, in the trainers, over checkpoints; what is refused."""

import json
import math

import pytest
import torch

from gpm_hf.training.block_advantages import (
    MONITOR_FILE,
    BlockMonitor,
    BlockSignal,
    block_advantages,
    block_means,
    block_variances,
)
from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.by_hand import checked_trainer
from tests.training.online import (
    OPTIONS,
    build_policy,
    chat_prompts,
    logged,
    make_trainer,
    prefer_by_text,
    recorded_targets,
)
from tests.training.test_preference_kinds import ANSWERS, QUESTION, signal_of

KINDS = {
    "gate": {"embedding_dim": 6},
    "no gate": {"embedding_dim": 4, "scale_gate": False},
    "Bradley-Terry": {"embedding_dim": 1},
    "reward head": {"embedding_dim": 4, "reward_head": True},
}


def advantages_by_hand(blocks, scales, weights=None):
    """A_i of lists B[l][i][j], lambda[l] and m[l], one number at a time."""
    size, found = len(blocks[0]), []
    means = [[sum(row) / size for row in block] for block in blocks]
    for i in range(size):
        total = 0.0
        for number, (of_block, scale) in enumerate(zip(means, scales)):
            centre = sum(of_block) / size
            deviation = math.sqrt(sum((one - centre) ** 2 for one in of_block) / (size - 1))
            weight = scale / sum(scales) * (weights[number] if weights else 1)
            total += weight * (of_block[i] - centre) / (deviation + 1e-4)
        found.append(total)
    return found


def blocks_by_hand(gpm, tokenizer, prompt, texts):
    """B[l][i][j] and lambda[l], from embeddings."""
    vectors, scales = gpm.embed(tokenizer, prompt, texts)
    tau, rows = gpm.config.tau, vectors.tolist()
    if len(rows[0]) == 1:
        return [[[(a[0] - b[0]) / tau for b in rows] for a in rows]], [1.0]
    blocks = [
        [[(a[at] * b[at + 1] - a[at + 1] * b[at]) / tau for b in rows] for a in rows]
        for at in range(0, len(rows[0]), 2)
    ]
    return blocks, [1.0] * len(blocks) if scales is None else scales.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_add_up_to_the_scores_and_advantages_are_the_formula(kind):
    gpm, tokenizer = build_gpm(**KINDS[kind]), build_tokenizer()
    signal = BlockSignal(signal_of(gpm, tokenizer), BlockMonitor())
    plain = signal_of(gpm, tokenizer)
    texts = [*ANSWERS[:2], " ", *ANSWERS[2:], "x"]
    rows = [QUESTION] * 6, texts, [[0, 1, 2, 3, 4, 5]]
    (matrix,), (expected,) = signal(*rows), plain(*rows)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=0, equal_nan=True)
    ((blocks, scales),) = signal.blocks
    torch.testing.assert_close((scales[:, None, None] * blocks).sum(0), expected, rtol=1e-4, atol=1e-5, equal_nan=True)
    (found,) = signal.advantages(watch=False)
    kept = [0, 1, 3, 4, 5]
    by_hand = advantages_by_hand(*blocks_by_hand(gpm, tokenizer, QUESTION, [texts[i] for i in kept]))
    assert found[kept].tolist() == pytest.approx(by_hand, abs=2e-3) and found[2].isnan()
    assert max(map(abs, by_hand)) > 0.3 and sum(by_hand) == pytest.approx(0, abs=1e-6)


def test_formulas():
    rng = torch.Generator().manual_seed(0)
    half = torch.randn(3, 4, 4, generator=rng, dtype=torch.float64)
    blocks, scales = half - half.mT, torch.tensor([0.2, 1.0, 0.6], dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0, 0.1], dtype=torch.float64)
    means = block_means(blocks)
    expected = advantages_by_hand(blocks.tolist(), scales.tolist(), weights.tolist())
    assert block_advantages(means, scales, weights).tolist() == pytest.approx(expected, abs=1e-12)
    # A block is no louder for being larger, but for the 1e-4.
    louder = blocks * torch.tensor([1000.0, 1.0, 1.0])[:, None, None]
    torch.testing.assert_close(
        block_advantages(block_means(louder), scales), block_advantages(means, scales), rtol=1e-3, atol=1e-3
    )
    for found, of_block, scale in zip(block_variances(means, scales), blocks.tolist(), scales.tolist()):
        own = [scale * sum(row) / 4 for row in of_block]
        assert found.item() == pytest.approx(sum((one - sum(own) / 4) ** 2 for one in own) / 3, abs=1e-12)
    # Against an opponent's two responses.
    torch.testing.assert_close(block_means(blocks, against=2), blocks[:, :2, 2:].mean(-1))
    assert block_advantages(torch.full((3, 4), torch.nan), scales).isnan().all()
    assert block_variances(torch.full((3, 4), torch.nan), scales).tolist() == [0, 0, 0]


def test_the_monitor_by_hand():
    monitor = BlockMonitor("reweigh", max_drift=0.05, rounds=2)
    for variances in ([1.0, 3.0], [3.0, 1.0]):
        monitor.update(torch.tensor(variances))
    assert monitor.start == [2.0, 2.0] and monitor.shares == [0.5, 0.5] and not monitor.has_run_away
    monitor.update(torch.tensor([2.0, 10.0]))
    # Averaged over two rounds: (2 + 2) / 2 and (2 + 10) / 2.
    drift = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert monitor.shares == pytest.approx([0.25, 0.75]) and monitor.drift == pytest.approx(drift)
    assert monitor.has_run_away and monitor.tightening == pytest.approx(drift / 0.05)
    assert monitor.weights == pytest.approx([1.0, 0.5 / 0.75])
    assert monitor.numbers()["block_weight_1"] == pytest.approx(0.5 / 0.75)
    monitor.update(torch.tensor([10.0, 6.0]))  # 6 and 6: as at the start
    assert monitor.drift == pytest.approx(0) and monitor.tightening == 1
    assert monitor.weights == pytest.approx([1.0, (0.5 / 0.75) ** 0.5])
    # A block that said nothing at the start.
    silent = BlockMonitor(rounds=1)
    for variances in ([1.0, 0.0], [1.0, 1.0]):
        silent.update(torch.tensor(variances))
    assert 0.5 < silent.drift < 4 and silent.weights == [1.0, 1.0]
    for options, message in (
        ({"action": "shout"}, "choose one of"),
        ({"max_drift": 0}, "above 0"),
        ({"rounds": 0}, "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            BlockMonitor(**options)


@pytest.mark.parametrize("log_z", ["zero", "group"])
def test_loss_and_gradient_by_hand(tmp_path, log_z, double):
    from transformers import AutoModelForCausalLM

    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()

    def targets(blocks, args):
        found = advantages_by_hand(*blocks)
        if args.log_z == "group":
            z = sum(math.exp(one / args.gpo_beta) for one in found) / len(found)
            found = [one - args.gpo_beta * math.log(z) for one in found]
        return found

    policy = AutoModelForCausalLM.from_pretrained(save_backbone(tmp_path / "policy"), dtype=double)
    trainer = make_trainer(
        tmp_path,
        policy,
        gpm,
        trainer_class=checked_trainer(lambda prompt, texts: blocks_by_hand(gpm, tokenizer, prompt, texts), targets),
        preference_processing_class=tokenizer,
        num_iterations=2,
        max_steps=2,
        learning_rate=0.004,
        block_advantages=True,
        log_z=log_z,
    )
    trainer.prepare_check()
    trainer.train()
    worst = {name: max(check[name] for check in trainer.checks) for name in trainer.checks[0]}
    print(worst)
    assert len(trainer.checks) == 2 and worst["loss"] < 1e-5 and worst["gradient"] < 1e-5
    shares = [logged(trainer, f"gpo/block_share_{number}")[0] for number in (0, 1)]
    assert sum(shares) == pytest.approx(1) and logged(trainer, "gpo/block_weight_0")[0] == 1


def test_one_block_is_grpo_scaled_by_groups(tmp_path):
    """In TRL's own trainer: advantages of a model of one block are those of `scale_rewards="group"`."""
    from trl import GRPOConfig, GRPOTrainer

    from gpm_hf.training.gpm_reward import GPMReward

    found = {}
    for name, scale, blocks in (("blocks", "none", BlockMonitor()), ("group", "group", None)):
        options = {key: value for key, value in OPTIONS.items() if key not in ("gpo_beta", "win_rate_prompts")}
        trainer = GRPOTrainer(
            model=build_policy(),
            reward_funcs=GPMReward(build_gpm(embedding_dim=2), build_tokenizer(), blocks=blocks),
            args=GRPOConfig(str(tmp_path), **options, scale_rewards=scale, max_steps=1, num_iterations=1),
            train_dataset=chat_prompts(),
            processing_class=build_tokenizer(),
        )
        inner = trainer._generate_and_score_completions

        def record(inputs, inner=inner, name=name):
            output = inner(inputs)
            found[name] = output["advantages"].clone()
            return output

        trainer._generate_and_score_completions = record
        trainer.train()
        logged_shares = [entry["block_share_0"] for entry in trainer.state.log_history if "block_share_0" in entry]
        assert logged_shares == ([1.0] if blocks else [])
    # The gate of one block is 1, and so both divide by the same number plus 1e-4.
    torch.testing.assert_close(found["blocks"], found["group"], rtol=1e-4, atol=1e-4)
    assert found["group"].abs().max() > 0.5


def test_the_monitor_is_in_checkpoints_and_may_stop_a_run(tmp_path):
    arguments = {
        "preference_processing_class": build_tokenizer(),
        "block_advantages": True,
        "block_monitor": "stop",
        "block_drift_max": 1e-9,
        "block_drift_rounds": 1,
        "num_iterations": 1,
        "save_strategy": "steps",
        "save_steps": 1,
    }
    first = make_trainer(tmp_path, build_policy(), build_gpm(embedding_dim=4), max_steps=5, **arguments)
    first.train()
    monitor = first.preference_signal.monitor
    assert first.state.global_step == monitor.seen == 2 and monitor.has_run_away
    kept = json.loads((tmp_path / "checkpoint-1" / MONITOR_FILE).read_text())
    assert kept["seen"] == 1 and kept["start"] == monitor.start
    again = make_trainer(tmp_path, build_policy(), build_gpm(embedding_dim=4), max_steps=2, **arguments)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert again.preference_signal.monitor == monitor
    (tmp_path / "checkpoint-1" / MONITOR_FILE).unlink()
    with pytest.raises(ValueError, match="holds no shares of blocks"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.slow
def test_a_length_axis_is_not_hacked():
    """The benchmark's game, three seeds: every one of them comes out as the whole table says."""
    from benchmarks.block_advantages import play

    for seed in range(3):
        plain, blocks, held = (
            play(monitor, seed, rounds=60, group=64)
            for monitor in (None, BlockMonitor(), BlockMonitor("reweigh", max_drift=0.02, rounds=5))
        )
        # From 2 tokens and half good.
        assert plain["tokens"] > 22 and plain["good"] < blocks["good"]
        assert blocks["tokens"] > 20 and blocks["good"] > 0.9
        assert held["tokens"] < 8 and held["good"] > 0.65


def test_refusals(tmp_path):
    from gpm_hf.training.gpm_reward import GPMReward
    from gpm_hf.training.online_gpo_config import OnlineGPOConfig

    with pytest.raises(ValueError, match=r"need the blocks of a general preference model \(gpm:NAME\), and"):
        make_trainer(tmp_path, preference=prefer_by_text, block_advantages=True)
    with pytest.raises(ValueError, match="no rewards beside it"):
        make_trainer(
            tmp_path,
            preference=build_gpm(embedding_dim=4),
            preference_processing_class=build_tokenizer(),
            reward_funcs=[lambda completions, **columns: [0.0] * len(completions)],
            block_advantages=True,
        )
    with pytest.raises(ValueError, match="cannot stop a training"):
        GPMReward(build_gpm(embedding_dim=4), build_tokenizer(), blocks=BlockMonitor("stop"))
    with pytest.raises(ValueError, match="whole matrices alone"):
        GPMReward(prefer_by_text, blocks=BlockMonitor())
    for options, message in (
        ({"block_monitor": "stop"}, "block_monitor: nothing is done by blocks"),
        ({"block_advantages": True, "loss_type": "sppo"}, "leave `loss_type` at 'gpo'"),
        ({"block_advantages": True, "include_self": False}, "`include_self` at its default"),
        ({"block_advantages": True, "block_drift_max": -1.0}, "above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            OnlineGPOConfig(str(tmp_path), **{**OPTIONS, **options})


def test_against_an_opponent(tmp_path):
    """Blocks of the policy's responses against stored ones."""
    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    prompts = chat_prompts().map(
        lambda row: {"opponent_responses": [[{"role": "assistant", "content": one}] for one in ANSWERS[:3]]}
    )
    trainer = make_trainer(
        tmp_path,
        preference=gpm,
        preference_processing_class=tokenizer,
        prompts=prompts,
        opponent="reference",
        block_advantages=True,
        max_steps=1,
    )
    asked, texts, targets = recorded_targets(trainer)
    vectors, scales = gpm.embed(tokenizer, asked[0], [*texts[:4], *ANSWERS[:3]])
    rows, means = vectors.tolist(), []
    for at in (0, 2):
        pairs = [[a[at] * b[at + 1] - a[at + 1] * b[at] for b in rows[4:]] for a in rows[:4]]
        means.append([sum(of_one) / 3 / gpm.config.tau for of_one in pairs])
    expected = [0.0] * 4
    for of_block, scale in zip(means, scales.tolist()):
        centre = sum(of_block) / 4
        deviation = math.sqrt(sum((one - centre) ** 2 for one in of_block) / 3)
        expected = [old + scale * (one - centre) / (deviation + 1e-4) for old, one in zip(expected, of_block)]
    assert targets.tolist() == pytest.approx(expected, abs=2e-3)
