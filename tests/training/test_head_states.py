"""States of a frozen backbone: right, shared where they may be, computed anew where they must."""

import datasets
import pytest
import torch
from datasets import Dataset

from gpm_hf.data.preference import encode_preference
from gpm_hf.training.head_states import with_head_states
from tests.conftest import build_gpm, build_tokenizer

ROWS = [
    {"prompt": "Why?", "chosen": "Because.", "rejected": "I do not know.", "margin": 0.5},
    {"prompt": "Why?", "chosen": "I do not know.", "rejected": "Bread and salt.", "margin": 0.0},
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path / "gpm_hf_head_states"


def encoded(rows=ROWS, tokenizer=None):
    tokenizer = tokenizer or build_tokenizer()
    dataset = Dataset.from_list(rows)
    return dataset.map(lambda row: encode_preference(row, tokenizer), remove_columns=["prompt", "chosen", "rejected"])


def files(cache):
    return sorted(path.name for path in cache.glob("*.arrow"))


def test_states_are_those_of_single_unpadded_sequences(cache):
    model = build_gpm(embedding_dim=4)
    rows = encoded()
    found = with_head_states(rows, model, batch_size=3)
    for row, states in zip(rows, found):
        for name in ("chosen", "rejected"):
            expected = model.model(torch.tensor([row[f"{name}_ids"]])).last_hidden_state[0, -1]
            assert torch.allclose(states[f"{name}_state"], expected, atol=1e-5)
        prompt = model.model(torch.tensor([row["prompt_ids"]])).last_hidden_state[0, -1]
        assert torch.allclose(states["prompt_state"], prompt, atol=1e-5)
        assert states["margin"] == row["margin"]


def test_one_file_serves_models_that_differ_in_their_heads_and_pairs_in_another_order(cache):
    model = build_gpm(embedding_dim=4)
    with_head_states(encoded(), model, 2)
    reward = build_gpm(embedding_dim=1, seed=1)
    reward.model.load_state_dict(model.model.state_dict())
    with_head_states(encoded(ROWS[::-1]), reward, 8)
    assert len(files(cache)) == 1


def test_another_backbone_text_or_template_is_another_file(cache):
    model = build_gpm(embedding_dim=4)
    with_head_states(encoded(), model, 2)
    with torch.no_grad():
        model.model.norm.weight[3] += 1e-3
    with_head_states(encoded(), model, 2)
    assert len(files(cache)) == 2
    with_head_states(encoded([ROWS[0] | {"chosen": "Because!"}]), model, 2)
    assert len(files(cache)) == 3
    tokenizer = build_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>\n", "<|im_end|>")
    with_head_states(encoded(tokenizer=tokenizer), model, 2)
    assert len(files(cache)) == 4


def test_an_interrupted_run_leaves_no_file_behind(cache):
    model = build_gpm(embedding_dim=4)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    model.pool = interrupted
    with pytest.raises(KeyboardInterrupt):
        with_head_states(encoded(), model, 2)
    assert files(cache) == []
