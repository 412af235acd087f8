"""Preference rows to token ids."""

import pytest

from gpm_hf.data.preference import check_columns, encode_preference
from tests.conftest import build_tokenizer

USER = {"role": "user", "content": "Why?"}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_a_conversation_is_split_where_the_two_part():
    row = {
        "chosen": [USER, assistant("Because."), USER, assistant("Good.")],
        "rejected": [USER, assistant("Because."), USER, assistant("Bad.")],
    }
    tokenizer = build_tokenizer()
    encoded = encode_preference(row, tokenizer)
    expected = tokenizer.apply_chat_template(row["chosen"][:3], add_generation_prompt=True)["input_ids"]
    assert encoded["prompt_ids"] == expected
    assert encoded["chosen_ids"] == tokenizer.apply_chat_template(row["chosen"])["input_ids"]


def test_a_reply_that_is_the_prefix_of_the_other_stays_a_reply():
    row = {"chosen": [USER, assistant("Yes.")], "rejected": [USER, assistant("Yes."), USER]}
    tokenizer = build_tokenizer()
    prompt = tokenizer.apply_chat_template([USER], add_generation_prompt=True)["input_ids"]
    assert encode_preference(row, tokenizer)["prompt_ids"] == prompt


def test_conversations_without_a_common_start_have_no_prompt():
    row = {"chosen": [USER, assistant("a")], "rejected": [{"role": "user", "content": "Who?"}, assistant("b")]}
    with pytest.raises(ValueError, match=r"no prompt to which both respond.*begins .*Why\?"):
        encode_preference(row, build_tokenizer())


def test_without_a_gate_they_are_read_as_they_are():
    row = {"chosen": [USER, assistant("a")], "rejected": [{"role": "user", "content": "Who?"}, assistant("b")]}
    tokenizer = build_tokenizer()
    encoded = encode_preference(row, tokenizer, needs_prompt=False)
    assert encoded == {
        f"{name}_ids": tokenizer.apply_chat_template(row[name])["input_ids"] for name in ("chosen", "rejected")
    }


def test_columns_that_scoring_could_not_repeat_are_refused():
    with pytest.raises(ValueError, match="tools"):
        check_columns(["prompt", "chosen", "rejected", "tools"], needs_prompt=True, needs_target=False)
