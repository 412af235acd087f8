"""A trainer's folder used twice, and the record of what is in it."""

import json
import os
import shutil

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from gpm_hf import GPMForPreference, GPMRewardConfig, GPMRewardTrainer, load_preference_model
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.publishing import publish
from gpm_hf.hub.record import RunRecord
from gpm_hf.modeling.weight_files_gpm import weight_sets
from tests.conftest import build_gpm, save_backbone
from tests.training.test_reward_trainer import ring_rows

PAIR = ("What is red?", ["Blood is red.", "Grass is green."])


def train(base, folder, lora=None, seed=0, **options):
    args = GPMRewardConfig(
        str(folder),
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        max_steps=4,
        learning_rate=2e-2,
        per_device_train_batch_size=4,
        seed=seed,
        **{"save_strategy": "no", "embedding_dim": 4, **options},
    )
    trainer = GPMRewardTrainer(str(base), args, train_dataset=Dataset.from_list(ring_rows(4)), peft_config=lora)
    trainer.train()
    trainer.save_model()
    return trainer


def probability(model, trainer):
    return model.eval().preference_scores(trainer.processing_class, *PAIR).sigmoid()[0, 1].item()


LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("first", ["lora", "whole"])
def test_the_second_run_into_a_folder_is_the_one_that_is_scored_told_and_pushed(base, first, tmp_path):
    kinds = {"lora": LoraConfig(**LORA), "whole": None}
    second = "whole" if first == "lora" else "lora"
    earlier = train(base, tmp_path / "model", kinds[first], save_strategy="steps", save_steps=4)
    old = probability(earlier.model, earlier)
    trainer = train(base, tmp_path / "model", kinds[second], seed=3, save_strategy="steps", save_steps=4)
    expected = probability(trainer.model, trainer)
    assert abs(expected - old) > 0.02, "or the comparison shows nothing"
    for folder in (tmp_path / "model", tmp_path / "model" / "checkpoint-4"):
        assert len(weight_sets(folder)) == 1
        found = load_preference_model(str(folder))
        assert probability(found, trainer) == pytest.approx(expected, abs=1e-5)
        for name in ("adapter_config.json", "adapter_base.json"):
            assert (folder / name).exists() == (second == "lora")
    card = (tmp_path / "model" / "README.md").read_text()
    assert ("LoRA adapter" in card) == (second == "lora")
    if second == "whole":
        weights = [one for one in publish(tmp_path / "model", "me/model", dry_run=True).files if "safetensors" in one]
        assert weights == ["model.safetensors"]


def test_a_record_is_about_the_weights_beside_it(base, tmp_path, tokenizer):
    train(base, tmp_path / "model")
    assert len(RunRecord.load(tmp_path / "model").weights_sha256) == 64
    write_card(tmp_path / "model", repo="me/model")
    build_gpm(embedding_dim=4, seed=9).save_pretrained(tmp_path / "model")
    for refused in (
        lambda: RunRecord.load(tmp_path / "model"),
        lambda: write_card(tmp_path / "model"),
        lambda: publish(tmp_path / "model", "me/model", dry_run=True),
    ):
        with pytest.raises(ValueError, match=r"gpm_run\.json is about other weights.*Remove gpm_run\.json"):
            refused()
    (tmp_path / "model" / "gpm_run.json").unlink()
    (tmp_path / "model" / "README.md").unlink()
    assert "gpm_run.json" not in publish(tmp_path / "model", "me/model", dry_run=True).files


def test_the_record_follows_a_second_run(base, tmp_path):
    train(base, tmp_path / "model")
    first = RunRecord.load(tmp_path / "model")
    train(base, tmp_path / "model", seed=3)
    second = RunRecord.load(tmp_path / "model")
    assert (first.hyperparameters["seed"], second.hyperparameters["seed"]) == (0, 3)
    # What bounded the training, not what did not, nor what was left unset.
    assert first.hyperparameters["max_steps"] == 4
    assert not {"num_train_epochs", "max_tokens_per_batch"} & set(first.hyperparameters)
    assert first.weights_sha256 != second.weights_sha256


def test_checkpoints_write_no_card_beside_the_weights_of_an_earlier_run(base, tmp_path):
    train(base, tmp_path / "model")
    before = (tmp_path / "model" / "gpm_run.json").read_text()

    class Interrupted(Exception):
        pass

    def interrupt(self, *arguments, **options):
        raise Interrupted

    original = GPMRewardTrainer.save_model
    try:
        GPMRewardTrainer.save_model = lambda self, folder=None, _internal_call=False: (
            original(self, folder, _internal_call) if _internal_call else interrupt(self)
        )
        with pytest.raises(Interrupted):
            train(base, tmp_path / "model", seed=3, save_strategy="steps", save_steps=2)
    finally:
        GPMRewardTrainer.save_model = original
    assert (tmp_path / "model" / "checkpoint-2").is_dir()
    assert (tmp_path / "model" / "gpm_run.json").read_text() == before
    assert RunRecord.load(tmp_path / "model").hyperparameters["seed"] == 0


def test_no_card_for_weights_that_were_not_saved(base, tmp_path):
    trainer = train(base, tmp_path / "model")
    trainer.state.global_step += 1  # as after some more training
    with pytest.raises(ValueError, match=r"does not hold the model as it now is.*save_model"):
        trainer.create_model_card()
    trainer.save_model()
    trainer.create_model_card()


def test_an_older_tokenizers_files_go(base, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "chat_template.jinja").write_text("an older one")
    (folder / "added_tokens.json").write_text("{}")
    trainer = train(base, folder)
    assert not (folder / "added_tokens.json").exists()
    assert (folder / "chat_template.jinja").read_text() == trainer.processing_class.chat_template


def test_an_adapter_of_what_lies_in_the_output_folder_is_refused_before_the_training(tmp_path):
    save_backbone(tmp_path / "model")
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with pytest.raises(ValueError, match=r"base model lies in .*: save to another folder"):
        train(tmp_path / "model", tmp_path / "model", LoraConfig(**LORA))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}


def test_a_checkpoint_of_two_models_is_not_resumed(base, tmp_path):
    train(base, tmp_path / "a", save_strategy="steps", save_steps=2)
    train(base, tmp_path / "b", LoraConfig(**LORA), save_strategy="steps", save_steps=2)
    shutil.copytree(tmp_path / "b" / "checkpoint-2", tmp_path / "a" / "checkpoint-2", dirs_exist_ok=True)
    trainer = train(base, tmp_path / "c")
    trainer.args.max_steps = 8
    with pytest.raises(ValueError, match="weights of 2 models"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))


def test_an_adapter_knows_its_base_again(base, tmp_path):
    """Of the same shape, and other weights: nothing else would say so."""
    shutil.copytree(base, tmp_path / "base")
    train(tmp_path / "base", tmp_path / "model", LoraConfig(**LORA), save_strategy="steps", save_steps=4)
    for folder in (tmp_path / "model", tmp_path / "model" / "checkpoint-4"):
        load_preference_model(str(folder))
    save_backbone(tmp_path / "base", seed=5)
    for folder in (tmp_path / "model", tmp_path / "model" / "checkpoint-4"):
        expected = rf"{folder} is an adapter of another model than {tmp_path}/base, whose weights were others"
        with pytest.raises(ValueError, match=expected):
            load_preference_model(str(folder))


def test_saved_again_in_another_number_of_files(base, tmp_path):
    train(base, tmp_path / "model")
    model = GPMForPreference.from_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model", max_shard_size="10KB")
    names = os.listdir(tmp_path / "model")
    assert "model.safetensors" not in names and "model.safetensors.index.json" in names
    again = GPMForPreference.from_pretrained(tmp_path / "model")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    assert json.loads((tmp_path / "model" / "config.json").read_text())["embedding_dim"] == 4
