"""Rows that once gave a silently wrong number, with what is right, on every road: training, the API, the pipeline."""

import json

import pytest
import torch

from gpm_hf.data.preference import encode_preference
from gpm_hf.modeling import PreferencePipeline, encode_group
from gpm_hf.scoring import GPMScorer
from tests.conftest import build_gpm, build_tokenizer
from tests.modeling.chat_templates import tokenizer_for


def cases(shared, name):
    path = shared / "cases" / name
    if not path.is_file():
        pytest.skip(f"no {name} among the shared cases")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def roads(row, tokenizer, model):
    """What each road makes of a row: ids of chosen and rejected, or scores."""
    prompt, responses = row.get("prompt"), [row["chosen"], row["rejected"]]
    judge = PreferencePipeline(model, tokenizer=tokenizer)
    return {
        "trained": lambda: encode_preference(row, tokenizer),
        "encoded": lambda: encode_group(tokenizer, prompt, responses).check_prompt(),
        "scored": lambda: model.preference_scores(tokenizer, prompt, responses),
        "pipeline": lambda: judge({"prompt": prompt, "responses": responses}),
        "scorer": lambda: GPMScorer(model, tokenizer)([prompt], [responses]),
    }


def test_whole_conversations(shared, tokenizer):
    model = build_gpm(embedding_dim=4)
    for row in cases(shared, "whole_conversations.jsonl"):
        if row["expect"].startswith("refused"):
            for road in roads(row, tokenizer, model).values():
                with pytest.raises(ValueError, match="does not begin with the prompt"):
                    road()
            continue
        *prompt, last = row["chosen"]
        split = {"prompt": prompt, "chosen": last["content"], "rejected": row["rejected"][-1]["content"]}
        given, right = roads(row, tokenizer, model), roads(split, tokenizer, model)
        assert given["trained"]() == right["trained"]()
        assert torch.equal(given["scored"](), right["scored"]())
        assert given["pipeline"]() == right["pipeline"]()
        assert torch.equal(given["scorer"]()[0], right["scorer"]()[0])


def test_conversations_that_share_too_little(shared, tokenizer):
    model = build_gpm(embedding_dim=4)
    for row, reason in zip(
        cases(shared, "shared_start.jsonl"), ("share only a system message", "differ in white space"), strict=True
    ):
        for road in roads(row, tokenizer, model).values():
            with pytest.raises(ValueError, match=reason):
                road()


def test_shapes_of_other_tools(shared, tokenizer):
    for row in cases(shared, "sharegpt.jsonl"):
        right = {"prompt": "What is rye?", "chosen": "A cereal.", "rejected": "A colour."}
        assert encode_preference(row, tokenizer) == encode_preference(right, tokenizer)


def test_empty_tool_calls(shared):
    for row in cases(shared, "tool_calls_empty.jsonl"):
        tokenizer = tokenizer_for(row["template"])
        right = {**row, "chosen": row["chosen"][0]["content"], "rejected": row["rejected"][0]["content"]}
        assert encode_preference(row, tokenizer) == encode_preference(right, tokenizer)


def test_what_templates_drop(shared):
    for row in cases(shared, "template_drops.jsonl"):
        tokenizer = tokenizer_for(row["template"])
        if row["expect"].startswith("refused"):
            with pytest.raises(
                ValueError, match=r"leaves out|cannot render|same tokens|empty after rendering"
            ) as caught:
                encode_group(tokenizer, row["prompt"], row["responses"])
            if "naming the role" in row["expect"]:
                role = (
                    row["prompt"][0]["role"] if row["prompt"][0]["role"] != "user" else row["responses"][0][0]["role"]
                )
                assert repr(role) in str(caught.value)
            continue
        group = encode_group(tokenizer, row["prompt"], row["responses"])
        assert group.sequences[0] != group.sequences[1]
        if row["expect"] == "as the same texts given as strings":
            texts = [response[0]["content"][0]["text"] for response in row["responses"]]
            assert group == encode_group(tokenizer, row["prompt"], texts)


def test_ultrafeedback_by_its_own_columns(shared):
    """Sixty real rows: a prompt as text, the answers as whole conversations; scores as for prompt and answer apart."""
    lines = (shared / "data" / "rb_llmbar.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines[:60]]
    tokenizer, model = build_tokenizer(), build_gpm(embedding_dim=4, seed=1)
    model.config.text_config.max_position_embeddings = 8192
    different = 0
    for row in rows:
        prompt, answers = row["prompt"], [row["chosen"], row["rejected"]]
        asked = {"role": "user", "content": prompt}
        whole = [[asked, {"role": "assistant", "content": answer}] for answer in answers]
        right = model.preference_scores(tokenizer, prompt, answers)
        assert torch.equal(model.preference_scores(tokenizer, prompt, whole), right)
        different += bool(right[0, 1] != 0)
    assert different == 60
