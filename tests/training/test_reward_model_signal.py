"""One rule says what a reward model reads: the same numbers by scorer, trainer and GPMReward, and as in training."""

import pytest
import torch
from datasets import Dataset
from tokenizers import processors

from gpm_hf.scoring import RewardModelScorer, load_scorer
from tests.conftest import build_tokenizer, save_backbone
from tests.scoring.models import build_llama_classifier

PROMPT, RESPONSES = "Which colour? ", ["yes", "no way", "Green, I think."]


def plain_tokenizer():
    """No chat template; its texts begin with BOS, as Llama's do."""
    tokenizer = build_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    return tokenizer


def read_by_hand(tokenizer, prompt, response):
    """Token ids: the chat template's, or BOS, text, EOS."""
    if tokenizer.chat_template is None:
        text = tokenizer(prompt + response, add_special_tokens=False)["input_ids"]
        return [tokenizer.bos_token_id, *text, tokenizer.eos_token_id]
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages)["input_ids"]


def differences(model, tokenizer):
    with torch.no_grad():
        rewards = [
            model(torch.tensor([read_by_hand(tokenizer, PROMPT, response)])).logits[0, 0] for response in RESPONSES
        ]
    return torch.stack(rewards)[:, None] - torch.stack(rewards)[None, :]


def save(folder, tokenizer):
    model = build_llama_classifier(initializer_range=0.6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, str(folder)


@pytest.fixture(scope="module", params=["plain", "chat"])
def saved(request, tmp_path_factory):
    tokenizer = plain_tokenizer() if request.param == "plain" else build_tokenizer()
    return *save(tmp_path_factory.mktemp("reward"), tokenizer), tokenizer


def test_scorer_and_group_reward_agree_with_the_hand(saved):
    from gpm_hf.training.gpm_reward import GPMReward

    model, folder, tokenizer = saved
    expected = differences(model, tokenizer)
    assert expected.abs().max() > 0.5
    (scored,) = load_scorer(f"reward:{folder}", device="cpu")([PROMPT], [RESPONSES])
    torch.testing.assert_close(scored, expected, rtol=0, atol=1e-4)
    for preference_model in (folder, model):
        found = GPMReward(preference_model, tokenizer)(prompts=[PROMPT] * 3, completions=RESPONSES)
        assert found == pytest.approx(expected.mean(-1).tolist(), abs=1e-4)


def test_trainer_agrees_with_the_scorer(saved, tmp_path):
    """By `preference_model`, by its name in `reward_funcs`, and by the model in `reward_funcs`."""
    from gpm_hf import OnlineGPOConfig, OnlineGPOTrainer

    model, folder, tokenizer = saved
    (expected,) = RewardModelScorer(model, tokenizer)([PROMPT], [RESPONSES])
    policy = save_backbone(tmp_path / "policy", tokenizer=build_tokenizer(chat=False))
    for number, source in enumerate(
        (
            {"preference_model": folder},
            {"reward_funcs": folder},
            {"reward_funcs": [model], "reward_processing_classes": [tokenizer]},
        )
    ):
        args = OnlineGPOConfig(
            str(tmp_path / str(number)),
            num_generations=3,
            per_device_train_batch_size=3,
            use_cpu=True,
            bf16=False,
            report_to="none",
            win_rate_prompts=0,
        )
        trainer = OnlineGPOTrainer(
            policy, args=args, train_dataset=Dataset.from_list([{"prompt": PROMPT}] * 3), **source
        )
        rows = [{"prompt": PROMPT}] * 3
        _, scores = trainer.judge(rows, [PROMPT] * 3, RESPONSES, [[5]] * 3, 3)
        torch.testing.assert_close(scores[0], expected, rtol=0, atol=1e-4)
        # A completion without text is unscorable, as for a preference model.
        _, scores = trainer.judge(rows, [PROMPT] * 3, ["yes", " ", "no way"], [[5]] * 3, 3)
        assert scores[0, 1].isnan().all() and scores[0, 0, 2] == pytest.approx(expected[0, 1].item(), abs=1e-4)


def test_what_trl_trains_is_what_is_read(tmp_path):
    """The ids of a row in TRL's own RewardTrainer, and of the scorer, where the rows are strings."""
    import trl

    tokenizer = plain_tokenizer()
    rows = [{"prompt": PROMPT, "chosen": RESPONSES[0], "rejected": RESPONSES[1]}]
    for chat in (False, True):
        if chat:
            tokenizer.chat_template = build_tokenizer().chat_template
        args = trl.RewardConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none")
        trainer = trl.RewardTrainer(
            build_llama_classifier(), args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
        )
        trained = trainer.train_dataset[0]
        scorer = RewardModelScorer(build_llama_classifier(), tokenizer, plain_text=chat)
        read = [row.ids for row in scorer.encode(PROMPT, RESPONSES[:2])]
        assert read == [trained["chosen_ids"], trained["rejected_ids"]]
    with pytest.raises(ValueError, match="one text and `text_pair` two segments"):
        RewardModelScorer(build_llama_classifier(), tokenizer, plain_text=True, text_pair=True)


def test_a_scorer_says_how_a_trainers_reward_model_is_read():
    from gpm_hf.training.gpm_reward import GPMReward

    tokenizer, model = build_tokenizer(), build_llama_classifier(initializer_range=0.6)
    scorer = RewardModelScorer(model, tokenizer, plain_text=True, temperature=2.0)
    (expected,) = scorer([PROMPT], [RESPONSES])
    assert (expected - RewardModelScorer(model, tokenizer)([PROMPT], [RESPONSES])[0] / 2).abs().max() > 0.01
    found = GPMReward(scorer)(prompts=[PROMPT] * 3, completions=RESPONSES)
    assert found == pytest.approx(expected.mean(-1).tolist(), abs=1e-4)


def test_empty_and_broken_rewards():
    from gpm_hf.training.gpm_reward import GPMReward

    model, tokenizer = build_llama_classifier(), build_tokenizer()
    assert GPMReward(model, tokenizer)(prompts=["p"] * 3, completions=["", "a", " "]) == [None, None, None]
    model.score.weight.data.fill_(torch.nan)
    with pytest.raises(
        ValueError, match=r"cannot score the completions of the prompt 'p'.* not finite.*check the checkpoint"
    ):
        GPMReward(model, tokenizer)(prompts=["p"] * 2, completions=["a", "b"])


def test_a_reward_models_adapter_works_wherever_a_reward_model_does(tmp_path):
    """Trained by TRL on a language model: the folder of the adapter, by scorer and trainer, as the model in memory."""
    import peft
    from transformers import AutoModelForSequenceClassification

    from gpm_hf.training.gpm_reward import GPMReward

    tokenizer = plain_tokenizer()
    base = save_backbone(tmp_path / "base", tokenizer=tokenizer)
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", init_lora_weights=False)
    adapted = peft.get_peft_model(model, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    expected = differences(adapted, tokenizer)
    assert expected.abs().max() > 0.1
    folder = str(tmp_path / "adapter")
    for spec in (folder, f"reward:{folder}"):
        (scored,) = load_scorer(spec, device="cpu")([PROMPT], [RESPONSES])
        torch.testing.assert_close(scored, expected, rtol=0, atol=1e-4)
    found = GPMReward(folder)(prompts=[PROMPT] * 3, completions=RESPONSES)
    assert found == pytest.approx(expected.mean(-1).tolist(), abs=1e-4)
    # TRL's RewardTrainer with a LoRA that names no task saves no head.
    headless = peft.get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1),
        peft.LoraConfig(target_modules=["q_proj"]),
    )
    headless.save_pretrained(tmp_path / "headless")
    with pytest.raises(ValueError, match=r"adapter of .* without the weights of 'score.weight'.*SEQ_CLS"):
        RewardModelScorer(str(tmp_path / "headless"), tokenizer)
