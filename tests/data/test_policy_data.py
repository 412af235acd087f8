"""Policy data: scoring, the selection rules by hand, the export that TRL trains on, and what is refused."""

import json
import logging
import math
from collections import Counter

import pytest
import torch
from datasets import Dataset

from gpm_hf.data.policy_data import all_responses, score_rows, select_pairs
from gpm_hf.modeling import PromptError
from tests.conftest import build_gpm, build_tokenizer

TEXTS = [f"Answer {chr(65 + i)} is {'very ' * (i % 4)}good." for i in range(16)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def scored(scores, responses=None, prompt="Why?", **columns):
    return {"prompt": prompt, "responses": responses or TEXTS[: len(scores)], "scores": scores, **columns}


def text(messages):
    (message,) = messages
    assert message["role"] == "assistant"
    return message["content"]


def zeros(prompts, groups):
    return [torch.zeros(len(group), len(group)) for group in groups]


# --- scoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5, 16])
def test_mean_scores_are_the_models(size):
    """Row means of `preference_scores`, for string and chat prompts, through the scorer that evaluations use."""
    from gpm_hf.scoring import GPMScorer

    gpm, tokenizer = build_gpm(embedding_dim=4), build_tokenizer()
    chat = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?"}]
    rows = [{"prompt": prompt, "responses": TEXTS[:size], "id": prompt[0]} for prompt in ("Why?", chat, "How?")]
    found = score_rows(rows, GPMScorer(gpm, tokenizer), batch_size=2)
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    worst = 0.0
    for row in json.loads(json.dumps(found)):
        expected = gpm.preference_scores(tokenizer, row["prompt"], row["responses"])
        worst = max(worst, (torch.tensor(row["mean_scores"]) - expected.mean(-1)).abs().max().item())
        torch.testing.assert_close(torch.tensor(row["scores"]), expected, rtol=0, atol=4e-5)
        for scores, mean in zip(row["scores"], row["mean_scores"]):
            assert mean == pytest.approx(sum(scores) / size, abs=1e-12)
    print(size, worst)
    assert worst < 4e-5 and max(map(abs, found[0]["mean_scores"])) > 0.1
    pairs = select_pairs(found)
    assert [pair["chosen_score"] for pair in pairs] == [max(row["mean_scores"]) for row in found]
    assert [pair["rejected_score"] for pair in pairs] == [min(row["mean_scores"]) for row in found]


def test_responses_without_text_are_left_out_and_counted(caplog):
    rows: list[dict] = [
        {"prompt": "a", "responses": ["x", " ", "y"], "policy_log_probs": [-1, -2, -3]},
        {"prompt": "b", "responses": ["x", ""]},
        {"prompt": "c", "responses": ["x"]},
        {"prompt": "d", "responses": ["x", "x"]},
    ]
    seen: list = []
    skipped: Counter = Counter()

    def scorer(prompts, groups):
        seen.extend(zip(prompts, groups))
        return zeros(prompts, groups)

    with caplog.at_level(logging.WARNING):
        found = score_rows(rows, scorer, skipped=skipped)
    assert seen == [("a", ["x", "y"]), ("d", ["x", "x"])]
    assert found[0]["responses"] == ["x", "y"] and found[0]["policy_log_probs"] == [-1.0, -3.0]
    assert skipped == {"responses without text": 2, "rows with fewer than two responses": 2}
    assert "2 responses without text, 2 rows with fewer than two responses" in caplog.text


def test_what_was_sampled_goes_with_its_response():
    """The answer that is left out takes its ids and log-probability along; what remains reaches the trainer's rows."""
    ids = {"prompt_ids": [7, 8], "response_ids": [[1, 2], [3], [4, 5]], "tokenizer_digest": "sha256:x"}
    row = {"prompt": "a", "responses": ["x", " ", "y"], "policy_log_probs": [-1, -2, -3], **ids}
    (found,) = score_rows([row], lambda *_: [[[0.0, -2.0], [2.0, 0.0]]])
    assert found["response_ids"] == [[1, 2], [4, 5]] and found["policy_log_probs"] == [-1.0, -3.0]
    (pair,) = select_pairs([found], with_policy_log_probs=True)
    assert (pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"]) == ([7, 8], [4, 5], [1, 2])
    assert (pair["ref_chosen_logps"], pair["tokenizer_digest"]) == (-3.0, "sha256:x")
    assert all_responses([found])["completion_ids"] == [[1, 2], [4, 5]]
    with pytest.raises(ValueError, match="row 0 has 3 responses, and `response_ids` that are not as many"):
        score_rows([row | {"response_ids": [[1], [2]]}], zeros)
    with pytest.raises(ValueError, match=r"row 0 has in `response_ids` \[1.5\], which is no list"):
        score_rows([row | {"response_ids": [[1], [1.5], [2]]}], zeros)


def test_refused_rows_and_scores():
    rows = [{"prompt": "a", "responses": ["x", "y"]}, {"prompt": "b", "responses": ["x", "y"]}]

    def refuse(prompts, groups):
        if "b" in prompts:
            raise ValueError(f"Prompt {prompts.index('b')}: too long.")
        return zeros(prompts, groups)

    with pytest.raises(ValueError, match=r"row 1 cannot be scored: Prompt 0: too long"):
        score_rows(rows, refuse)
    calls = []

    def number(prompts, groups):
        calls.append(prompts)
        raise PromptError(1, "too long.")

    # The row's number is in the error: nothing is scored again to find it.
    with pytest.raises(ValueError, match=r"^row 1 cannot be scored: too long\.$"):
        score_rows(rows, number)
    assert calls == [["a", "b"]]
    with pytest.raises(ValueError, match=r"row 1: The preference matrix is not skew-symmetric"):
        score_rows(rows, lambda prompts, groups: [torch.zeros(2, 2), torch.ones(2, 2)])
    with pytest.raises(ValueError, match=r"row 0: The preference matrix has the non-finite entry"):
        score_rows(rows, lambda prompts, groups: [torch.full((2, 2), math.nan)] * 2)
    with pytest.raises(ValueError, match=r"row 0 has 2 responses, but a matrix of scores of shape \(3, 3\)"):
        score_rows(rows, lambda prompts, groups: [torch.zeros(3, 3)] * 2)
    with pytest.raises(ValueError, match="returned 1 matrices for 2 prompts"):
        score_rows(rows, lambda prompts, groups: [torch.zeros(2, 2)])
    with pytest.raises(ValueError, match=r"row 0 has the columns \['prompt'\]: it needs `prompt` and `responses`"):
        score_rows([{"prompt": "a"}], zeros)
    with pytest.raises(ValueError, match="row 0: `responses` must be a list of strings"):
        score_rows([{"prompt": "a", "responses": "xy"}], zeros)
    with pytest.raises(ValueError, match="row 0 has 2 responses and 1 `policy_log_probs`"):
        score_rows([{**rows[0], "policy_log_probs": [1.0]}], zeros)
    with pytest.raises(ValueError, match=r"No row is left that could be scored\. Left out: 1 rows with fewer"):
        score_rows([{"prompt": "a", "responses": ["x"]}], zeros)
    with pytest.raises(ValueError, match="there were no rows"):
        score_rows([], zeros)
    with pytest.raises(ValueError, match="0 rows at once"):
        score_rows(rows, zeros, batch_size=0)


# --- selection -------------------------------------------------------------------------------------------------------

# 0 > 1 > 2 > 0, and 3 loses to all of them: most to 1.
CYCLE = [[0.0, 2.0, -1.0, 0.5], [-2.0, 0.0, 1.0, 3.0], [1.0, -1.0, 0.0, 0.5], [-0.5, -3.0, -0.5, 0.0]]


def test_pair_of_highest_and_lowest_mean():
    (pair,) = select_pairs([scored(CYCLE)])
    assert pair["prompt"] == [{"role": "user", "content": "Why?"}]
    assert (text(pair["chosen"]), text(pair["rejected"])) == (TEXTS[1], TEXTS[3])
    assert (pair["chosen_score"], pair["rejected_score"]) == (0.5, -1.0)
    for side, row in (("chosen", 1), ("rejected", 3)):
        assert pair[f"{side}_probability"] == pytest.approx(sum(map(sigmoid, CYCLE[row])) / 4, abs=1e-12)
    assert pair["preference_probability"] == pytest.approx(sigmoid(3.0), abs=1e-12)


def test_von_neumann_winner_against_its_worst_reply():
    """The winner mixes 0, 1, 2 by 1/4, 1/4, 1/2: response 2 is chosen, and 3 loses most to the mixture."""
    (pair,) = select_pairs([scored(CYCLE)], rule="von_neumann")
    assert (text(pair["chosen"]), text(pair["rejected"])) == (TEXTS[2], TEXTS[3])
    assert (pair["chosen_score"], pair["rejected_score"]) == (0.125, -1.0)
    # A cycle alone: the mixture beats none, and the chosen response itself decides.
    ring = [row[:3] for row in CYCLE[:3]]
    (pair,) = select_pairs([scored(ring)], rule="von_neumann")
    assert (text(pair["chosen"]), text(pair["rejected"])) == (TEXTS[2], TEXTS[0])
    # A Condorcet winner that the mean does not choose.
    condorcet = [[0.0, 0.1, 0.1], [-0.1, 0.0, 5.0], [-0.1, -5.0, 0.0]]
    (pair,) = select_pairs([scored(condorcet)], rule="von_neumann")
    assert text(pair["chosen"]) == TEXTS[0]
    assert text(select_pairs([scored(condorcet)])[0]["chosen"]) == TEXTS[1]


def test_all_pairs_weighted():
    pairs = select_pairs([scored(CYCLE)], rule="all")
    found = {(TEXTS.index(text(p["chosen"])), TEXTS.index(text(p["rejected"]))): p for p in pairs}
    assert set(found) == {(0, 1), (2, 0), (0, 3), (1, 2), (1, 3), (2, 3)}
    for (i, j), pair in found.items():
        assert pair["preference_probability"] == pytest.approx(sigmoid(CYCLE[i][j]), abs=1e-12)
        assert pair["weight"] == pytest.approx(sigmoid(CYCLE[i][j]) - sigmoid(CYCLE[j][i]), abs=1e-12)
        assert pair["chosen_score"] == pytest.approx(sum(CYCLE[i]) / 4)


def test_all_responses():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    rows = [scored(CYCLE, policy_log_probs=[-1.0, -2.0, -3.0, -4.0]), scored([[0, 0], [0, 0]], ["x", "x"], chat)]
    samples = all_responses(rows)
    assert len(samples) == 6 and samples.column_names == ["prompt", "completion", "score", "probability"]
    assert [text(sample["completion"]) for sample in samples] == [*TEXTS[:4], "x", "x"]
    assert samples["score"][:4] == [sum(row) / 4 for row in CYCLE] and samples[5]["prompt"] == chat
    assert samples["probability"][4:] == [0.5, 0.5]
    assert all_responses(rows[:1], with_policy_log_probs=True)["ref_logps"] == [-1.0, -2.0, -3.0, -4.0]
    (pair,) = select_pairs(rows[:1], with_policy_log_probs=True)
    assert (pair["ref_chosen_logps"], pair["ref_rejected_logps"]) == (-2.0, -4.0)
    with pytest.raises(ValueError, match="row 1 has no `policy_log_probs`, which were asked for"):
        all_responses(rows, with_policy_log_probs=True)


@pytest.mark.parametrize("rule", ["mean", "von_neumann", "all"])
def test_equals_are_left_out_and_counted(rule):
    """No preference, one text twice (with scores that an inexact scorer gave), and fewer than two responses."""
    even = [[0.0, 0.0], [0.0, 0.0]]
    skew = [[0.0, 1.0], [-1.0, 0.0]]
    rows = [scored(even), scored(skew, ["x", "x"]), scored([[0.0]], ["x"]), scored(skew)]
    skipped: Counter = Counter()
    (pair,) = select_pairs(rows, rule, skipped=skipped)
    assert text(pair["chosen"]) == TEXTS[0]
    expected = {"rows without a preference": 2, "rows with fewer than two responses": 1}
    assert skipped == (expected | {"pairs of equals": 2} if rule == "all" else expected)
    with pytest.raises(ValueError, match=r"No row is left that could be paired\. Left out: "):
        select_pairs(rows[:3], rule)


def test_a_text_sampled_twice_counts_twice():
    """Mean scores are those over samples: the doubled text weighs double, and it is never paired with itself."""
    scores = [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]
    row = scored(scores, ["x", "x", "y"])
    (pair,) = select_pairs([row])
    assert pair["chosen_score"] == pytest.approx(1 / 3) and pair["rejected_score"] == pytest.approx(-2 / 3)
    assert len(select_pairs([row], "all")) == 2 and len(all_responses([row])) == 3


def test_refused_selection():
    with pytest.raises(ValueError, match="rule='best': choose one of mean, von_neumann, all"):
        select_pairs([scored(CYCLE)], rule="best")
    with pytest.raises(ValueError, match="row 1: The preference matrix is not skew-symmetric"):
        select_pairs([scored(CYCLE), scored([[0.0, 1.0], [1.0, 0.0]])])
    with pytest.raises(ValueError, match="row 0 has no `scores`: score the rows by `score_rows`"):
        select_pairs([{"prompt": "a", "responses": ["x", "y"]}])
    with pytest.raises(ValueError, match="row 0 has scores for a response without text"):
        select_pairs([scored([[0.0, 1.0], [-1.0, 0.0]], ["x", " "])])
    with pytest.raises(ValueError, match="row 0: `mean_scores` are not the row means of `scores`"):
        select_pairs([scored(CYCLE, mean_scores=[1.0, 0.0, 0.0, 0.0])])
    with pytest.raises(ValueError, match="row 0: `prompt` must be a string or chat messages"):
        select_pairs([scored(CYCLE, prompt=[])])
    with pytest.raises(ValueError, match="row 0: `policy_log_probs` are not all finite"):
        select_pairs([scored(CYCLE, policy_log_probs=[0.0, math.inf, 0.0, 0.0])], with_policy_log_probs=True)


def test_rows_of_a_data_set_and_of_a_file(tmp_path):
    """What was written as JSON lines is read as it was."""
    from gpm_hf.data.splits import load_splits

    rows = [scored(CYCLE, mean_scores=[sum(row) / 4 for row in CYCLE]), scored([[0.0, 1.0], [-1.0, 0.0]])]
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    expected = select_pairs(rows).to_list()
    assert select_pairs(load_splits(str(path))["train"]).to_list() == expected
    assert select_pairs(Dataset.from_list(rows)).to_list() == expected


# --- TRL -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "loss_type"),
    [("mean", "sigmoid"), ("mean", "ipo"), ("mean", "sppo_hard"), ("von_neumann", "sigmoid"), ("all", "ipo")],
)
def test_trl_trains_on_the_export(tmp_path, rule, loss_type):
    from trl import DPOConfig, DPOTrainer

    from tests.training.online import build_policy

    data = select_pairs([scored(CYCLE), scored(CYCLE, prompt="How?")], rule)
    args = DPOConfig(
        str(tmp_path), loss_type=loss_type, max_steps=1, per_device_train_batch_size=2, learning_rate=1e-2, bf16=False,
        use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1,
        precompute_ref_log_probs=True, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(build_policy(), None, args, train_dataset=data, processing_class=build_tokenizer())
    trainer.train()
    losses = {"sigmoid": math.log(2), "ipo": (1 / 0.2) ** 2, "sppo_hard": 2 * 5.0**2}
    assert trainer.state.log_history[0]["loss"] == pytest.approx(losses[loss_type], rel=1e-3)
    assert any((a != b).any() for a, b in zip(trainer.model.parameters(), build_policy().parameters()))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"mean_scores": ["high", "low"]}, "`mean_scores` must be a list of numbers"),
        ({"mean_scores": [1.0]}, "`mean_scores` are not the row means"),
        ({"policy_log_probs": [None, -1.0]}, "`policy_log_probs` must be a list of numbers"),
        ({"policy_log_probs": 3}, "`policy_log_probs` must be a list of numbers"),
        ({"responses": None}, "`responses` must be a list of strings"),
    ],
)
def test_columns_of_other_types_are_named_with_their_row(columns, sentence):
    good = {"prompt": "a", "responses": ["x", "y"], "scores": [[0.0, 1.0], [-1.0, 0.0]]}
    for make in (select_pairs, all_responses):
        with pytest.raises(ValueError, match=f"row 1: {sentence}"):
            make([good, good | columns])
