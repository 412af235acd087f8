"""Tokens added to a vocabulary: their embeddings are saved and load again, or the training does not begin."""

import pytest
import torch

from tests.conftest import build_tokenizer, save_backbone
from tests.training.test_reward_trainer import make_trainer, ring_rows

ADAPTERS = {
    "plain": {},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "rows of embeddings": {"trainable_token_indices": {"embed_tokens": [400]}},
}


@pytest.fixture
def base(tmp_path):
    return save_backbone(tmp_path / "base")


def larger_tokenizer():
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<new>"])
    assert len(tokenizer) == 401
    return tokenizer


def rows_with_new_token():
    return [row | {"chosen": f"{row['chosen']} <new>"} for row in ring_rows(4)]


def start(base, resized=True):
    from gpm_hf import GPMForPreference

    model = GPMForPreference.from_backbone(base, embedding_dim=4)
    if resized:
        model.resize_token_embeddings(401)
    return model


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_of_resized_embeddings(tmp_path, base, adapter):
    """What is not in the base's checkpoint would be lost; saved first, everything loads again."""
    from peft import LoraConfig

    from gpm_hf import load_preference_model, load_tokenizer

    lora = LoraConfig(r=2, target_modules=["q_proj"], **ADAPTERS[adapter])
    model, tokenizer, rows = start(base), larger_tokenizer(), rows_with_new_token()
    with pytest.raises(
        ValueError, match=r"has 401 token embeddings and .*base, .* has 400: the new ones would be lost"
    ):
        make_trainer(tmp_path / "refused", model, rows, tokenizer=tokenizer, peft_config=lora)
    assert not (tmp_path / "refused").exists()

    model.save_pretrained(tmp_path / "resized")
    tokenizer.save_pretrained(tmp_path / "resized")
    trainer = make_trainer(
        tmp_path / "out", str(tmp_path / "resized"), rows, tokenizer=tokenizer, peft_config=lora, max_steps=2
    )
    before = trainer.gpm.get_input_embeddings().weight[400].detach().clone()
    trainer.train()
    trainer.save_model()
    question = ("Question 1?", ["The answer is <new>.", "It may be green."])
    expected = trainer.gpm.preference_scores(tokenizer, *question)
    loaded = load_preference_model(str(tmp_path / "out"))
    scores = loaded.preference_scores(load_tokenizer(str(tmp_path / "out")), *question)
    assert torch.allclose(scores, expected, atol=1e-5)
    merged = loaded.merge_and_unload()
    after = merged.get_input_embeddings().weight[400]
    assert torch.equal(after, before) == (adapter == "plain")
    assert torch.allclose(merged.preference_scores(tokenizer, *question), expected, atol=1e-4)


def test_tokens_of_a_cloned_template_and_an_adapter(tmp_path, base):
    from peft import LoraConfig

    from gpm_hf import load_preference_model, load_tokenizer

    larger_tokenizer().save_pretrained(tmp_path / "template")
    options = {"embedding_dim": 4, "chat_template_path": str(tmp_path / "template"), "max_steps": 1}
    with pytest.raises(ValueError, match="the new ones would be lost"):
        make_trainer(tmp_path, base, peft_config=LoraConfig(r=2, target_modules=["q_proj"]), **options)
    trainer = make_trainer(tmp_path / "whole", base, **options)  # all weights are saved
    trainer.train()
    trainer.save_model()
    question = ("Question 1?", ["The answer is <new>.", "It may be green."])
    model, tokenizer = (load(str(tmp_path / "whole")) for load in (load_preference_model, load_tokenizer))
    expected = trainer.gpm.preference_scores(trainer.processing_class, *question)
    assert torch.equal(model.preference_scores(tokenizer, *question), expected)


def test_a_tokenizer_with_more_tokens_than_the_model(tmp_path, base):
    sentence = "The tokenizer has 1 tokens, such as '<new>' with the id 400, and the model has embeddings for 0 to 399"
    with pytest.raises(ValueError, match=sentence):
        make_trainer(tmp_path, start(base, resized=False), ring_rows(1), tokenizer=larger_tokenizer())
    model = start(base, resized=False).eval()
    for responses in (["<new>", "b"], ["a", "<new>", "c", "d"]):
        with pytest.raises(ValueError, match="a token with the id 400, and the model has embeddings for 0 to 399"):
            model.preference_scores(larger_tokenizer(), "Question?", responses)
    long = "What is the capital of France? " * 4  # encoded once for all responses
    with pytest.raises(ValueError, match="a token with the id 400"):
        model.preference_scores(larger_tokenizer(), f"{long} <new>", ["a", "b", "c"])
    assert model.preference_scores(larger_tokenizer(), "Question?", ["a", "b"]).shape == (2, 2)


@pytest.mark.parametrize("named", [False, True])
def test_a_policys_tokenizer_with_more_tokens_than_the_policy(tmp_path, base, named):
    from tests.training import test_offline_gpo as offline

    data = offline.selected(offline.scored_rows(2), "mean")
    policy = base if named else offline.build_policy()
    with pytest.raises(ValueError, match="The tokenizer has 1 tokens, such as '<new>' with the id 400"):
        offline.make_trainer(tmp_path, data, policy, tokenizer=larger_tokenizer())


def test_a_search_of_hyper_parameters_is_refused_in_words(tmp_path, base):
    from gpm_hf import GPMRewardTrainer
    from tests.training.test_reward_trainer import config

    with pytest.raises(ValueError, match=r"`model_init` is for a search.*Make a trainer for each"):
        GPMRewardTrainer(None, config(tmp_path), model_init=lambda: start(base))
    with pytest.raises(NotImplementedError, match="Make a trainer for each"):
        make_trainer(tmp_path).hyperparameter_search(n_trials=1)


def test_a_column_that_would_be_ignored_is_named(tmp_path):
    rows = [row | {"system": "Answer in one word."} for row in ring_rows(1)]
    with pytest.raises(ValueError, match=r"the column \['system'\], which would not be read"):
        make_trainer(tmp_path, rows=rows)
