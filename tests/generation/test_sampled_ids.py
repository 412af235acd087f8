# ruff: noqa: RUF001 (DeepSeek's bars are no slips)
"""What was sampled is what is trained: ids and log-probabilities under real chat templates."""

import json
import math

import pytest

from gpm_hf.data.policy_data import all_responses, select_pairs
from gpm_hf.data.sampled_ids import tokenizer_digest
from gpm_hf.generation import (
    PolicySampler,
    SamplingOptions,
    encode_prompt,
)
from gpm_hf.generation.sampled_group import response_text
from gpm_hf.training.sampled_rows import rendering_fault
from tests.conftest import build_tokenizer
from tests.generation.log_probs import token_log_probs
from tests.generation.templates import (
    TEMPLATES,
    chat_template,
    hand_log_prob,
    table_policy,
    template_policy,
    template_tokenizer,
)
from tests.training.online import prefer_by_text
from tests.training.test_offline_gpo import make_trainer

PROMPTS = ["Red?", [{"role": "system", "content": "Be short."}, {"role": "user", "content": "How do I bake bread?"}]]


def sample_rows(policy, tokenizer, **options):
    sampler = PolicySampler(
        policy, tokenizer, SamplingOptions(**{"num_generations": 6, "max_new_tokens": 12, **options})
    )
    groups = sampler.sample(PROMPTS, 3)
    return [{"prompt": prompt} | group.columns() for prompt, group in zip(PROMPTS, groups)]


def scored(rows):
    """As a file gives them back."""
    matrices = prefer_by_text([row["prompt"] for row in rows], [row["responses"] for row in rows])
    return json.loads(json.dumps([row | {"scores": scores} for row, scores in zip(rows, matrices)]))


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_log_prob_of_the_trained_ids_is_the_samplers(tmp_path, name):
    tokenizer = template_tokenizer(name)
    policy = template_policy(tokenizer)
    policy.config._name_or_path = name
    rows = sample_rows(policy, tokenizer)
    worst = 0.0
    for row in rows:
        assert row["prompt_ids"] == encode_prompt(tokenizer, row["prompt"])
        for ids, log_prob in zip(row["response_ids"], row["policy_log_probs"]):
            # One token ends an answer, the last one; an answer that was cut has none.
            assert tokenizer.eos_token_id not in ids[:-1] and (ids[-1] == tokenizer.eos_token_id or len(ids) == 12)
            worst = max(worst, abs(log_prob - hand_log_prob(policy, row["prompt_ids"], ids)))
    found = token_log_probs(policy, [row["prompt_ids"] for row in rows], [row["response_ids"] for row in rows])
    for row, values in zip(rows, found):
        assert values == pytest.approx(row["policy_log_probs"], abs=1e-4)

    trainer = make_trainer(tmp_path, all_responses(scored(rows)), policy, tokenizer)
    sampled = [(row, ids, value) for row in rows for ids, value in zip(row["response_ids"], row["policy_log_probs"])]
    assert len(trainer.train_dataset) == len(sampled) == 12
    for trained, (row, ids, log_prob) in zip(trainer.train_dataset, sampled):
        assert trained["prompt_ids"] == row["prompt_ids"] and trained["chosen_ids"] == ids
        worst = max(worst, abs(trained["ref_chosen_logps"] - log_prob))
    cut = [ids for _, ids, _ in sampled if ids[-1] != tokenizer.eos_token_id]
    print(name, worst, len(cut))
    assert worst < 1e-4 and cut


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("method", ["ours", "dpo"])
def test_pairs_are_of_sampled_ids(tmp_path, name, method):
    from gpm_hf.training import OfflineGPOConfig
    from gpm_hf.training.precomputed_reference import PrecomputedReferenceDPOTrainer

    tokenizer = template_tokenizer(name)
    policy = template_policy(tokenizer)
    rows = sample_rows(policy, tokenizer)
    pairs = select_pairs(scored(rows))
    if method == "ours":
        trainer = make_trainer(tmp_path, pairs, policy, tokenizer)
    else:
        args = make_trainer(tmp_path, pairs, template_policy(tokenizer), tokenizer).args
        assert isinstance(args, OfflineGPOConfig)
        args.loss_type = ["sigmoid"]
        trainer = PrecomputedReferenceDPOTrainer(policy, None, args, train_dataset=pairs, processing_class=tokenizer)
    for trained, row, pair in zip(trainer.train_dataset, rows, pairs):
        for side in ("chosen", "rejected"):
            place = row["responses"].index(pair[side][0]["content"])
            assert trained[f"{side}_ids"] == row["response_ids"][place]
            assert trained[f"ref_{side}_logps"] == pytest.approx(row["policy_log_probs"][place], abs=1e-4)
        assert trained["prompt_ids"] == row["prompt_ids"]
    assert trainer.train().metrics["train_loss"] > 0


def test_log_probs_are_the_policys_at_temperature_one():
    """Drawn at T = 0.5 and top-p 0.8 (25, 9 of 34) from p = 0.5, 0.3, 0.2, a token still has its own probability."""
    tokenizer = template_tokenizer("qwen3")
    policy = table_policy(tokenizer, {"a": 0.5, "b": 0.3, "c": 0.2})
    rows = sample_rows(policy, tokenizer, num_generations=30, max_new_tokens=1, temperature=0.5, top_p=0.8)
    expected = {"a": math.log(0.5), "b": math.log(0.3)}
    assert {text for row in rows for text in row["responses"]} == set(expected)
    for row in rows:
        for text, log_prob in zip(row["responses"], row["policy_log_probs"]):
            assert log_prob == pytest.approx(expected[text], abs=1e-5)


def test_samples_that_differ_in_their_reasoning_alone_stay_two():
    """R1's template drops the reasoning: rendered anew they would be one text with two targets."""
    tokenizer = template_tokenizer("deepseek_r1_distill")
    texts = ["a red bread\n</think>\n\nParis.", "a city\n</think>\n\nParis."]
    ids = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in texts]
    row = {
        "prompt": "Where?",
        "responses": texts,
        "prompt_ids": encode_prompt(tokenizer, "Where?"),
        "response_ids": ids,
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "scores": [[0.0, 1.0], [-1.0, 0.0]],
    }
    (pair,) = select_pairs([row])
    assert [pair["chosen_ids"], pair["rejected_ids"]] == ids and pair["prompt_ids"] == row["prompt_ids"]


def test_a_prompt_is_put_to_the_policy_whole_or_not_at_all():
    """Parts under Qwen3, whose template would render nothing; ShareGPT's names; a role that would be dropped."""
    tokenizer = template_tokenizer("qwen3")
    expected = encode_prompt(tokenizer, "Where?")
    assert tokenizer.decode(expected) == "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    assert encode_prompt(tokenizer, [{"role": "user", "content": [{"type": "text", "text": "Where?"}]}]) == expected
    assert encode_prompt(tokenizer, [{"from": "human", "value": "Where?"}]) == expected
    messages = [{"role": "human", "content": "Where?"}, {"role": "user", "content": "Well?"}]
    with pytest.raises(
        ValueError, match=r"row 3: .* leaves out the content of message 0 \(role 'human'\) of the prompt"
    ):
        encode_prompt(tokenizer, messages, "row 3")


# --- texts -----------------------------------------------------------------------------------------------------------

CHANNELS = "<|channel|>analysis<|message|>bread<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>"


def read(tokenizer, text, prompt="Where?"):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return response_text(tokenizer, encode_prompt(tokenizer, prompt), ids, [tokenizer.eos_token_id])


def test_special_tokens_inside_an_answer_are_kept():
    tokenizer = template_tokenizer("gptoss")
    assert read(tokenizer, CHANNELS) == CHANNELS.removesuffix("<|return|>")
    tokenizer = template_tokenizer("llama3_1")
    call = '<|python_tag|>{"name": "map"}'
    assert read(tokenizer, f"{call}<|eot_id|>") == call
    policy = table_policy(tokenizer, {"<|python_tag|>": 0.7, "<|eot_id|>": 0.3})
    lengths = set()
    for row in sample_rows(policy, tokenizer, temperature=1.0, top_p=1.0):
        for text, ids in zip(row["responses"], row["response_ids"]):
            lengths.add(len(ids))
            assert text == "<|python_tag|>" * (len(ids) - (ids[-1] == tokenizer.eos_token_id))
    assert len(lengths) > 2


def test_the_tokenizers_own_parser_reads_the_answer(tmp_path):
    from transformers import AutoTokenizer
    from trl.chat_template_utils import add_response_schema

    add_response_schema(template_tokenizer("gptoss")).save_pretrained(tmp_path / "gptoss")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "gptoss")
    assert read(tokenizer, CHANNELS) == "Paris."
    # Cut before there was an answer, and a call that no text could hold.
    assert read(tokenizer, "<|channel|>analysis<|message|>bread") == ""
    call = ' to=functions.map<|channel|>commentary json<|message|>{"a": 1}<|call|>'
    assert read(tokenizer, call) == call
    add_response_schema(template_tokenizer("deepseek_r1_distill")).save_pretrained(tmp_path / "r1")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "r1")
    # The prompt has the beginning of the reasoning.
    assert read(tokenizer, "bread\n</think>\n\nParis.<｜end▁of▁sentence｜>") == "Paris."
    assert read(tokenizer, "bread\n</think>") == ""


# --- rows without ids ------------------------------------------------------------------------------------------------


def test_texts_of_others_are_trained_where_they_are_rendered_whole(tmp_path):
    rows = [{"prompt": "Where?", "responses": [" Paris. ", "Red."], "scores": [[0.0, 1.0], [-1.0, 0.0]]}]
    tokenizer = template_tokenizer("llama3")
    trainer = make_trainer(tmp_path, select_pairs(rows), template_policy(tokenizer), tokenizer)
    (row,) = trainer.train_dataset
    assert row["prompt_ids"] == encode_prompt(tokenizer, "Where?")
    assert tokenizer.decode(row["chosen_ids"]) == "Paris.<|eot_id|>"
    tokenizer = template_tokenizer("qwen3")
    rows[0]["responses"] = [f"<think>\nbread\n</think>\n\n{text}" for text in ("Paris.", "Red.")]
    trainer = make_trainer(tmp_path, select_pairs(rows), template_policy(tokenizer), tokenizer)
    assert tokenizer.decode(trainer.train_dataset[0]["chosen_ids"]) == f"{rows[0]['responses'][0]}<|im_end|>\n"


WHOLE = [
    "cohere",
    "cohere2",
    "gemma",
    "gemma3",
    "gemma4",
    "lfm2",
    "llama3",
    "llama3_1",
    "llama3_2",
    "phi3",
    "phi3_5",
    "qwen2_5",
    "qwen3_5_nothink",
]
OTHERWISE = [
    "deepseek_r1_distill",
    "deepseekv3",
    "glm4moe",
    "gptoss",
    "nemotron_3_nano",
    "qwen3",
    "qwen3_5_think",
    "qwen3_6",
    "qwen3_8",
]


@pytest.mark.parametrize("name", [*WHOLE, *OTHERWISE])
def test_which_templates_render_a_plain_answer_whole(name):
    tokenizer = build_tokenizer()
    tokenizer.chat_template = chat_template(name)
    fault = rendering_fault(tokenizer, [{"role": "user", "content": "Where?"}], "Paris.")
    assert (fault is None) == (name in WHOLE), fault


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (
            "qwen3",
            r"writes '<think>\\n\\n</think>\\n\\nParis\.<\|im_end\|>' after the prompt where 'Paris\.' was given",
        ),
        ("deepseek_r1_distill", "renders the prompt differently when a response follows"),
        ("gptoss", r"writes '<\|channel\|>final<\|message\|>Paris\."),
    ],
)
@pytest.mark.parametrize("selection", [select_pairs, all_responses])
def test_texts_of_others_that_are_rendered_otherwise_are_refused(tmp_path, name, fault, selection):
    tokenizer = template_tokenizer(name)
    plain = {"prompt": "Where?", "responses": ["Paris.", "Red."], "scores": [[0.0, 1.0], [-1.0, 0.0]]}
    with pytest.raises(ValueError, match=rf"Row 0: the chat template {fault}.*`chosen`.*response_ids"):
        make_trainer(tmp_path, selection([plain]), template_policy(tokenizer), tokenizer)


def test_ids_are_checked(tmp_path):
    tokenizer = template_tokenizer("qwen3")
    policy = template_policy(tokenizer)
    (row, other) = scored(sample_rows(policy, tokenizer))
    pairs, another = select_pairs([row, other]), template_tokenizer("qwen3")
    another.chat_template = chat_template("qwen3_instruct_2507")
    with pytest.raises(ValueError, match="Row 0 was sampled with another tokenizer or chat template"):
        make_trainer(tmp_path, pairs, policy, another)
    with pytest.raises(ValueError, match=r"train data set has chosen_ids, .* without tokenizer_digest"):
        make_trainer(tmp_path, pairs.remove_columns("tokenizer_digest"), policy, tokenizer)
    with pytest.raises(
        ValueError, match=r"Row 1 has in `rejected_ids` \[\], which is no list of one or more token ids"
    ):
        broken = pairs.remove_columns("rejected_ids").add_column("rejected_ids", [pairs[0]["rejected_ids"], []])
        make_trainer(tmp_path, broken, policy, tokenizer)
    with pytest.raises(ValueError, match="row 1 has no ids of what was sampled"):
        select_pairs([row, {name: other[name] for name in ("prompt", "responses", "scores")}])
    with pytest.raises(ValueError, match="row 0 has prompt_ids, response_ids without tokenizer_digest"):
        select_pairs([{**row, "tokenizer_digest": None}])
    with pytest.raises(ValueError, match="row 0 has 6 responses, and `response_ids` that are not as many"):
        select_pairs([{**row, "response_ids": row["response_ids"][1:]}])


def test_the_digest_is_that_of_vocabulary_and_template(tmp_path):
    from transformers import AutoTokenizer

    tokenizer = template_tokenizer("qwen3")
    tokenizer.save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path, padding_side="left", truncation_side="left")
    assert tokenizer_digest(saved) == tokenizer_digest(tokenizer) != tokenizer_digest(template_tokenizer("llama3"))
    saved.chat_template += " "
    assert tokenizer_digest(saved) != tokenizer_digest(tokenizer)
