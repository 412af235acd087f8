"""
Nothing around a sequence changes its embedding: padding on either side, what stands in padded positions, the size of
the batch, other responses, other groups. Shown on every backbone, with sequences longer than the sliding window of 16.
"""

import pytest
import torch

from gpm_hf import GPMConfig, GPMForPreference, preference_matrix
from gpm_hf.modeling import encode_group
from tests.conftest import BACKBONES, backbone_config, build_gpm, build_tokenizer

PROMPT = "How do I bake bread? Mix flour, water, salt and yeast, let the dough rest."
RESPONSES = [
    "Bake it.",
    "The capital of France is Paris, a city on the river Seine, and a good answer is short and clear.",
    "Red, green and blue beat each other in a ring",
    "rock",
    "Let the dough rest, then bake it in a hot oven. A better answer also gives an example.",
]
# Over ten times what CPU kernels differ by; a padded token that is read changes embeddings by 0.1 and more.
EMBEDDING_TOLERANCE = {"atol": 2e-5, "rtol": 0}
LOG_ODDS_TOLERANCE = {"atol": 2e-4, "rtol": 0}


@pytest.fixture(scope="module", params=BACKBONES)
def model(request):
    return build_gpm(request.param, embedding_dim=4)


@pytest.fixture(scope="module")
def group(tokenizer):
    return encode_group(tokenizer, PROMPT, RESPONSES)


@pytest.fixture(scope="module")
def alone(model, group):
    """Embeddings and scales of each sequence alone: one row, no padding, no mask, the backbone called directly."""
    embeddings, scales = [], []
    with torch.no_grad():
        for sequence in group.sequences:
            states = model.model(input_ids=torch.tensor([sequence])).last_hidden_state[0]
            embedding = model.embedding_head.weight @ states[-1]
            embeddings.append(embedding / embedding.norm())
            gate = (model.gate_head.weight @ states[len(group.prompt_ids) - 1]).exp()
            scales.append(gate / gate.sum())
    embeddings, scales = torch.stack(embeddings), torch.stack(scales)
    assert (embeddings[0] - embeddings[1:]).norm(dim=-1).min() > 0.1, "embeddings that are alike show nothing"
    return embeddings, scales


def padded(sequences, left, right, filler):
    """A batch with the given numbers of extra columns on either side of the longest row; `filler` in the padding."""
    longest = max(len(sequence) for sequence in sequences)
    rows, masks = [], []
    for index, sequence in enumerate(sequences):
        spare = longest - len(sequence)
        before = left + (spare if left and not right else spare // 2 if left else 0)
        after = longest + left + right - before - len(sequence)
        rows.append([filler(index + k) for k in range(before)] + sequence + [filler(index - k) for k in range(after)])
        masks.append([0] * before + [1] * len(sequence) + [0] * after)
    return torch.tensor(rows), torch.tensor(masks)


def test_sequences_exceed_the_sliding_window(group):
    assert len(group.prompt_ids) > 20
    lengths = {len(sequence) for sequence in group.sequences}
    assert len(lengths) >= 4, "ragged lengths"


@pytest.mark.parametrize(("left", "right"), [(0, 3), (3, 0), (2, 2)], ids=["right", "left", "both"])
@pytest.mark.parametrize("filler", [lambda k: 0, lambda k: 1, lambda k: 40 + k % 300], ids=["pad", "eos", "any token"])
def test_padding(model, group, alone, left, right, filler):
    input_ids, attention_mask = padded(group.sequences, left, right, filler)
    prompt_lengths = torch.full((len(RESPONSES),), len(group.prompt_ids))
    with torch.no_grad():
        output = model(input_ids, attention_mask, prompt_lengths)
    torch.testing.assert_close(output.embeddings, alone[0], **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(output.scales, alone[1], **EMBEDDING_TOLERANCE)
    scores = preference_matrix(output.embeddings, output.scales[0], 0.1)
    torch.testing.assert_close(scores, preference_matrix(alone[0], alone[1][0], 0.1), **LOG_ODDS_TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_batch_size(model, tokenizer, alone, batch_size):
    embeddings, scales = model.embed(tokenizer, PROMPT, RESPONSES, batch_size=batch_size)
    torch.testing.assert_close(embeddings, alone[0], **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(scales, alone[1][0], **EMBEDDING_TOLERANCE)
    scores = model.preference_scores(tokenizer, PROMPT, RESPONSES, batch_size=batch_size)
    torch.testing.assert_close(scores, preference_matrix(alone[0], alone[1][0], 0.1), **LOG_ODDS_TOLERANCE)
    assert (scores + scores.T == 0).all()


def test_other_responses_in_the_group(model, tokenizer, alone):
    for chosen in ([3, 1], [4], [2, 0, 3]):
        embeddings, scales = model.embed(tokenizer, PROMPT, [RESPONSES[index] for index in chosen])
        torch.testing.assert_close(embeddings, alone[0][chosen], **EMBEDDING_TOLERANCE)
        torch.testing.assert_close(scales, alone[1][0], **EMBEDDING_TOLERANCE)


def test_other_groups_in_the_batch(model, tokenizer, alone):
    prompts = ["Why?", PROMPT, PROMPT + " " + PROMPT]
    groups = [["Because", RESPONSES[1] * 2], RESPONSES, ["rock"]]
    scores = model.preference_scores(tokenizer, prompts, groups)[1]
    torch.testing.assert_close(scores, preference_matrix(alone[0], alone[1][0], 0.1), **LOG_ODDS_TOLERANCE)
    encoded = [encode_group(tokenizer, *pair) for pair in zip(prompts, groups, strict=True)]
    embeddings, scales = model.embed_groups(encoded, batch_size=3)[1]
    torch.testing.assert_close(embeddings, alone[0], **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(scales, alone[1][0], **EMBEDDING_TOLERANCE)


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_tokenizer_that_pads_with_eos(model, alone, padding_side):
    """The ids are the same; only what the tokenizer would pad with, and where, differs."""
    tokenizer = build_tokenizer(pad_is_eos=True, padding_side=padding_side)
    embeddings, scales = model.embed(tokenizer, PROMPT, RESPONSES)
    torch.testing.assert_close(embeddings, alone[0], **EMBEDDING_TOLERANCE)
    torch.testing.assert_close(scales, alone[1][0], **EMBEDDING_TOLERANCE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_that_ends_with_the_padding_token(side):
    """SmolLM2 pads with EOS: pooling by looking for pad ids takes the token before the true last one."""
    torch.manual_seed(0)
    config = backbone_config("llama", pad_token_id=1, eos_token_id=1)
    model = GPMForPreference(GPMConfig(text_config=config, embedding_dim=4)).eval()
    tokenizer = build_tokenizer(chat=False, pad_is_eos=True, padding_side=side)
    sequences = encode_group(tokenizer, "Why?", [" Red", " Red, green and blue"]).sequences
    assert all(sequence[-1] == tokenizer.pad_token_id for sequence in sequences)
    batch = tokenizer.pad({"input_ids": sequences}, return_tensors="pt")
    assert batch["attention_mask"].sum(-1).tolist() == [len(sequence) for sequence in sequences]
    with torch.no_grad():
        together = model(**batch, prompt_lengths=torch.tensor([2, 2])).embeddings
        for index, sequence in enumerate(sequences):
            state = model.model(input_ids=torch.tensor([sequence])).last_hidden_state[0, -1]
            expected = model.embedding_head.weight @ state
            torch.testing.assert_close(together[index], expected / expected.norm(), **EMBEDDING_TOLERANCE)


def test_later_tokens_do_not_change_the_scales(model, group):
    """The gate reads the prompt's last token, which a causal backbone computes from the prompt alone."""
    with torch.no_grad():
        states = model.model(input_ids=torch.tensor([group.prompt_ids])).last_hidden_state[0, -1]
    gate = model.gate_head(states[None])
    prompt_alone = gate.softmax(-1)[0]
    for sequence in group.sequences:
        output = model(torch.tensor([sequence]), prompt_lengths=torch.tensor([len(group.prompt_ids)]))
        torch.testing.assert_close(output.scales[0], prompt_alone, **EMBEDDING_TOLERANCE)
