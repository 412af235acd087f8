"""Checkpoints: whole or passed over, and a resumed run states the figures of an undisturbed one."""

import json
import math
import shutil

import pytest
import torch
from transformers import TrainerCallback

from gpm_hf.training import checkpoints
from gpm_hf.training.checkpoints import whole_checkpoints
from tests.training import online, test_offline_gpo, test_reward_trainer

OPTIONS = {
    "max_steps": 4,
    "logging_strategy": "steps",
    "logging_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "optim": "adamw_torch",
    "learning_rate": 1e-2,
    "lr_scheduler_type": "linear",
}
# What depends on the clock, or, as transformers has it, on the call of `train`.
OF_THE_CLOCK = ("_runtime", "_per_second", "step_time", "total_flos")


class Kill(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def reward(folder, **options):
    return test_reward_trainer.make_trainer(folder, **{**OPTIONS, "per_device_train_batch_size": 2, **options})


def offline(folder, **options):
    data = test_offline_gpo.selected(test_offline_gpo.scored_rows(), "mean")
    return test_offline_gpo.make_trainer(folder, data, **{**OPTIONS, "per_device_train_batch_size": 1, **options})


def online_gpo(folder, **options):
    return online.make_trainer(folder, **{**OPTIONS, "win_rate_prompts": 2, "win_rate_steps": 4, **options})


def figures(trainer):
    return [
        {name: value for name, value in entry.items() if not name.endswith(OF_THE_CLOCK)}
        for entry in trainer.state.log_history
    ]


@pytest.mark.parametrize(
    "make",
    [reward, pytest.param(offline, marks=pytest.mark.slow), pytest.param(online_gpo, marks=pytest.mark.slow)],
)
def test_a_resumed_run_states_the_figures_of_an_undisturbed_one(make, tmp_path):
    """Killed between two logs, resumed from the checkpoint between them: means over all steps since the last log."""
    whole = make(tmp_path / "whole")
    whole.train()
    killed = make(tmp_path / "killed")
    killed.add_callback(Kill(3))
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    resumed = make(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    found, expected = figures(resumed), figures(whole)
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected] == [4, 4]
    for one, other in zip(found, expected):
        assert one == pytest.approx(other, rel=1e-12, nan_ok=True)
    assert "num_tokens" in found[0] and "loss" in found[0] and "train_loss" in found[1]


@pytest.mark.parametrize(
    "values", [[1.0, 1.0, 1.0, 0.0], [0.1, 0.2, 0.7], [3], [math.nan, 0.5], [math.nan], [math.inf]]
)
def test_a_mean_goes_on(values):
    """What is added later joins the mean as if nothing had been written: of 1, 1, 1, 0 and 0, 0, 0, 1 it is 1/2."""
    kept = checkpoints._values(json.loads(json.dumps(checkpoints._summary(values), allow_nan=False)))

    def mean(numbers):  # as GRPO's log has it
        defined = [value for value in numbers if not math.isnan(value)]
        return sum(defined) / len(defined) if defined else math.nan

    assert len(kept) == len(values)
    for later in ([], [0.0, 0.0, 0.0, 1.0], [math.nan]):
        assert mean([*kept, *later]) == pytest.approx(mean([*values, *later]), rel=1e-15, nan_ok=True)


def test_an_incomplete_checkpoint_is_passed_over_in_words(tmp_path, caplog):
    caplog.set_level("INFO", "gpm_hf")
    trainer = reward(tmp_path)
    trainer.train()
    (last, whole) = (tmp_path / "checkpoint-4", tmp_path / "checkpoint-2")
    assert whole_checkpoints(tmp_path) == ([whole, last], {})
    state = (last / "trainer_state.json").read_text()
    for name, content, lacks in (
        ("trainer_state.json", state[:-20], "trainer_state.json, which is written last, or a part of it"),
        ("running_figures.json", None, "no running_figures.json"),
        ("rng_state.pth", None, "a model alone"),
    ):
        kept = shutil.copytree(last, tmp_path / "kept")
        (last / name).unlink()
        if content:
            (last / name).write_text(content)
        assert [path.name for path in whole_checkpoints(tmp_path)[0]] == ["checkpoint-2"]
        with pytest.raises(ValueError, match=f"checkpoint-4 is no whole checkpoint: .*{lacks}"):
            reward(tmp_path).train(resume_from_checkpoint=str(last))
        shutil.rmtree(last)
        kept.rename(last)
    (last / "trainer_state.json").unlink()

    resumed = reward(tmp_path)
    resumed.train(resume_from_checkpoint="True")  # as a launch script hands it on
    said = [record.getMessage() for record in caplog.records if "checkpoint-" in record.getMessage()]
    assert len(said) == 2 and f"{last} is passed over, it was not written to its end" in said[0]
    assert said[1].endswith(f"Going on from {whole}.")
    assert figures(resumed) == figures(trainer) and whole_checkpoints(tmp_path) == ([whole, last], {})

    for path in (whole, last):
        shutil.rmtree(path)
    with pytest.raises(ValueError, match="holds no whole checkpoint to go on from"):
        reward(tmp_path).train(resume_from_checkpoint=True)


def test_what_an_earlier_run_left_is_no_part_of_a_checkpoint(tmp_path):
    """A kill while a checkpoint is written over another run's leaves none, and not a mixture of both."""
    (tmp_path / "checkpoint-2").mkdir()
    for name in ("trainer_state.json", "rng_state.pth", "running_figures.json", "initial_policy.json"):
        (tmp_path / "checkpoint-2" / name).write_text("{}")
    trainer = reward(tmp_path)
    saved = trainer.save_model

    def killed(folder=None, _internal_call=False):
        saved(folder, _internal_call)
        raise KeyboardInterrupt

    trainer.save_model = killed
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    names = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert "model.safetensors" in names and not names & {"trainer_state.json", "rng_state.pth", "initial_policy.json"}
    assert whole_checkpoints(tmp_path)[0] == []


def test_the_initial_policys_answers_come_before_the_state(tmp_path):
    """Without them the divergence would be from the policy as resumed: 0.016 where 0.238 was right."""
    whole = online_gpo(tmp_path)
    whole.train()
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "checkpoint-2").iterdir()}
    for name in ("initial_policy.json", "running_figures.json"):
        assert written[name] <= written["trainer_state.json"]
    (tmp_path / "checkpoint-2" / "initial_policy.json").unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2 holds no answers of the initial policy"):
        online_gpo(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_from_the_last_step_no_further_one_is_trained(tmp_path):
    """Killed between the last checkpoint and the end, in the midst of an epoch: transformers trains one step more."""
    options = {"max_steps": 3, "save_steps": 3}
    whole = reward(tmp_path, **options)
    whole.train()
    resumed = reward(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 3 and whole.state.epoch % 1 > 0
    expected = whole.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.model.state_dict().items())
    assert not (tmp_path / "checkpoint-4").exists()
