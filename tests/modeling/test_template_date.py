"""Scores do not change with the day, whatever the chat template writes about it."""

import datetime
import json
from pathlib import Path

import pytest
import torch

from gpm_hf.data.preference import encode_preference
from gpm_hf.modeling import GPMConfig, GPMForPreference, encode_group, fixed_templates
from gpm_hf.modeling import template_date_gpm as template_date
from tests.conftest import backbone_config, build_gpm, build_tokenizer, draw_gate, save_backbone

MADE = datetime.datetime(2026, 11, 29, 23, 59)
DAY_AFTER = datetime.datetime(2026, 11, 30, 0, 1)
MONTH_AFTER = datetime.datetime(2026, 12, 30, 12, 0)
CLOCKS = [MADE, DAY_AFTER, MONTH_AFTER]
# A line break first, and a call inside a macro, where the fixed date must hold as well.
TEMPLATE = (
    "\n  {% macro head(role) %}<|im_start|>{{ role }} {{ strftime_now('%d %b %Y, %A') }}\n{% endmacro %}"
    "{% for message in messages %}{{ head(message['role']) }}{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ head('assistant') }}{% endif %}"
)
PROMPT, RESPONSES = "Which day is it?", ["I do not know.", "Ask a friend, who has a calendar.", "Paris."]


@pytest.fixture
def at(monkeypatch):
    """Sets the clock of chat templates."""
    from transformers.utils import chat_template_utils

    def set_clock(moment):
        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return moment

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    return set_clock


def dated_tokenizer(template=TEMPLATE):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def real_template(name):
    trl = pytest.importorskip("trl")
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text()


def text_at(tokenizer, at, moment, **options):
    at(moment)
    return tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, **options)


@pytest.mark.parametrize("name", [None, "llama3_2", "gptoss", "muse_glimmer"])
def test_log_odds_are_the_same_every_day(at, name):
    torch.manual_seed(0)
    config = backbone_config(max_position_embeddings=2048)
    model = draw_gate(GPMForPreference(GPMConfig(text_config=config, embedding_dim=4)).eval())
    tokenizer = dated_tokenizer(real_template(name) if name else TEMPLATE)
    scores, ids = [], []
    for moment in CLOCKS:
        at(moment)
        scores.append(model.preference_scores(tokenizer, PROMPT, RESPONSES))
        ids.append(encode_group(tokenizer, PROMPT, RESPONSES, **model.config.encoding_options).sequences)
    assert scores[0].abs().max() > 0.1
    for another, sequences in zip(scores[1:], ids[1:]):
        assert torch.equal(scores[0], another) and sequences == ids[0]


def test_ids_are_those_of_the_models_date(at):
    tokenizer = dated_tokenizer()
    at(MADE)
    group = encode_group(tokenizer, PROMPT, RESPONSES[:1], template_date="2025-03-07")
    day = "07 Mar 2025, Friday"
    head = f"\n<|im_start|>user {day}\n{PROMPT}<|im_end|>\n<|im_start|>assistant {day}\n"
    assert tokenizer.decode(group.prompt_ids).strip() == head.strip()
    assert tokenizer.decode(group.sequences[0]).strip() == f"{head}{RESPONSES[0]}<|im_end|>".strip()


def test_policies_keep_the_clock(at):
    tokenizer = dated_tokenizer()
    at(MADE)
    ids = encode_group(tokenizer, PROMPT, RESPONSES[:1], template_date=None).prompt_ids
    assert "29 Nov 2026" in tokenizer.decode(ids)


@pytest.mark.parametrize("prompt_format", ["clean", "reference"])
def test_a_row_is_trained_on_the_ids_that_are_scored_another_day(at, prompt_format):
    model, tokenizer = build_gpm(embedding_dim=4, prompt_format=prompt_format), dated_tokenizer()
    row = {"prompt": PROMPT, "chosen": RESPONSES[0], "rejected": RESPONSES[1]}
    at(MADE)
    trained = encode_preference(row, tokenizer, **model.config.encoding_options)
    at(MONTH_AFTER)
    scored = encode_group(tokenizer, PROMPT, RESPONSES[:2], **model.config.encoding_options)
    assert [trained["chosen_ids"], trained["rejected_ids"]] == scored.sequences
    assert trained["prompt_ids"] == scored.prompt_ids


@pytest.mark.parametrize("name", ["llama3_2", "gptoss", "gptoss_training", "muse_glimmer"])
@pytest.mark.parametrize("moment", [datetime.datetime(2024, 7, 26), datetime.datetime(2026, 2, 3)])
def test_real_templates_write_what_they_write_on_that_day(at, name, moment):
    """But for the date nothing of a rendering changes: it is that of the day, at midnight."""
    template = real_template(name)
    tokenizer = dated_tokenizer(template)
    there_and_then = text_at(tokenizer, at, moment)
    assert f"{moment:%Y}" in there_and_then
    tokenizer.chat_template = fixed_templates(template, f"{moment:%Y-%m-%d}")
    assert text_at(tokenizer, at, MONTH_AFTER) == there_and_then


def test_every_directive_is_that_of_strftime(at):
    for moment in (datetime.datetime(2024, 12, 31), datetime.datetime(2005, 3, 6)):
        for directive in ["%d", "%-d", "%e", "%b", "%B", "%m", "%-m", "%y", "%Y", "%a", "%A", "%j", "%u", "%w", "%F"]:
            for text in (directive, f"on {directive}, %H:%M:%S"):
                tokenizer = dated_tokenizer(f"{{{{ strftime_now('{text}') }}}}")
                there_and_then = text_at(tokenizer, at, moment)
                tokenizer.chat_template = fixed_templates(tokenizer.chat_template, f"{moment:%Y-%m-%d}")
                assert text_at(tokenizer, at, MADE) == there_and_then == moment.strftime(text)


def test_fixing_anew_replaces_the_date(at):
    once = fixed_templates(TEMPLATE, "2025-03-07")
    assert fixed_templates(once, "2025-03-07") == once
    assert fixed_templates(once, "2024-01-02") == fixed_templates(TEMPLATE, "2024-01-02")


def test_templates_that_ask_for_no_date_stay_as_they_are():
    template = build_tokenizer().chat_template
    assert fixed_templates(template, "2025-03-07") == template
    assert fixed_templates(None, "2025-03-07") is None


def test_of_several_templates_the_default_is_fixed(at):
    tokenizer = dated_tokenizer({"default": TEMPLATE, "tool_use": "{{ strftime_now('%Y') }}"})
    at(MADE)
    prompt = tokenizer.decode(encode_group(tokenizer, PROMPT, RESPONSES, template_date="2025-03-07").prompt_ids)
    assert "07 Mar 2025" in prompt


def test_the_date_is_in_the_configuration(tmp_path):
    assert GPMConfig(text_config=backbone_config()).template_date == "2024-07-26"
    config = GPMConfig(text_config=backbone_config(), template_date=datetime.date(2025, 3, 7))
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["template_date"] == "2025-03-07"
    assert GPMConfig.from_pretrained(tmp_path).template_date == "2025-03-07"
    with pytest.raises(ValueError, match=r"template_date='7 March' is no date.*YYYY-MM-DD"):
        GPMConfig(text_config=backbone_config(), template_date="7 March")


def test_an_older_model_warns_once_and_does_not_change_either(at, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(template_date.logger, "warning", lambda message, *_, **__: warnings.append(message))
    template_date.logger.warning_once.cache_clear()
    build_gpm(embedding_dim=4).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["template_date"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    model = GPMForPreference.from_pretrained(tmp_path)
    model.preference_scores(build_tokenizer(), PROMPT, RESPONSES)
    assert not warnings  # its template asks for no date
    scores = []
    for moment in CLOCKS:
        at(moment)
        scores.append(model.preference_scores(dated_tokenizer(), PROMPT, RESPONSES))
    assert len(warnings) == 1
    assert "2024-07-26" in warnings[0]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_what_the_trainer_saves_writes_the_same_date_everywhere(at, tmp_path):
    """Also by the tokenizer alone, as other libraries call it."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    from gpm_hf import GPMRewardConfig, GPMRewardTrainer

    base = save_backbone(tmp_path / "base", tokenizer=dated_tokenizer())
    at(MADE)
    rows = [{"prompt": PROMPT, "chosen": RESPONSES[0], "rejected": RESPONSES[1]}]
    args = GPMRewardConfig(
        str(tmp_path / "gpm"), template_date="2025-03-07", bf16=False, use_cpu=True, report_to="none"
    )
    trainer = GPMRewardTrainer(base, args, train_dataset=Dataset.from_list(rows))
    trainer.save_model()
    at(MONTH_AFTER)
    model = GPMForPreference.from_pretrained(tmp_path / "gpm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gpm")
    group = encode_group(tokenizer, PROMPT, RESPONSES[:2], **model.config.encoding_options)
    trained = trainer.train_dataset[0]
    assert [trained["chosen_ids"], trained["rejected_ids"]] == group.sequences
    assert "07 Mar 2025" in text_at(tokenizer, at, MONTH_AFTER)
    chat = [{"role": "user", "content": PROMPT}, {"role": "assistant", "content": RESPONSES[0]}]
    assert tokenizer.apply_chat_template(chat)["input_ids"] == trained["chosen_ids"]


@pytest.mark.parametrize("kind", ["reward", "judge"])
def test_other_scorers_do_not_change_with_the_day_either(at, kind):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from gpm_hf.scoring import PairCompletionScorer, RewardModelScorer

    torch.manual_seed(0)
    if kind == "reward":
        model = AutoModelForSequenceClassification.from_config(backbone_config(num_labels=1)).eval()
        scorer = RewardModelScorer(model, dated_tokenizer(), template_date="2025-03-07")
    else:
        model = AutoModelForCausalLM.from_config(backbone_config()).eval()
        scorer = PairCompletionScorer(model, dated_tokenizer(), template_date="2025-03-07")
    scores = []
    for moment in CLOCKS:
        at(moment)
        scores.append(scorer([PROMPT], [RESPONSES])[0])
    assert scores[0].abs().max() > 0
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


@pytest.mark.parametrize("asked", [None, "2025-03-07"])
def test_training_an_older_model_gives_it_a_date(tmp_path, asked):
    from datasets import Dataset

    from gpm_hf import GPMRewardConfig, GPMRewardTrainer

    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "old")
    dated_tokenizer().save_pretrained(tmp_path / "old")
    saved = json.loads((tmp_path / "old" / "config.json").read_text())
    del saved["template_date"]
    (tmp_path / "old" / "config.json").write_text(json.dumps(saved))
    args = GPMRewardConfig(str(tmp_path / "new"), template_date=asked, bf16=False, use_cpu=True, report_to="none")
    rows = [{"prompt": PROMPT, "chosen": RESPONSES[0], "rejected": RESPONSES[1]}]
    trainer = GPMRewardTrainer(str(tmp_path / "old"), args, train_dataset=Dataset.from_list(rows))
    trainer.save_model()
    assert GPMConfig.from_pretrained(tmp_path / "new").template_date == (asked or "2024-07-26")
