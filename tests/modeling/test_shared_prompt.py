"""A prompt encoded once for all its responses: the same numbers, fewer tokens."""

import pytest
import torch

from gpm_hf.modeling import EncodedGroup, encode_group
from gpm_hf.modeling.cache_gpm import cache_argument
from tests.conftest import BACKBONES, build_gpm, build_tokenizer


def ids(length, seed):
    return torch.randint(5, 400, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def group(prompt_length, *response_lengths, seed=0):
    prompt = ids(prompt_length, seed)
    sequences = [prompt + ids(length, 100 * seed + place) for place, length in enumerate(response_lengths, 1)]
    return EncodedGroup(sequences, prompt)


GROUPS = [group(60, 3, 9, 1, 20), group(40, 5, 2, seed=1), group(7, 30, 4, seed=2), group(90, 1, 1, 1, seed=3)]


def by_hand(model, one):
    """Each sequence alone, unpadded, without a cache."""
    states = [model.model(torch.tensor([sequence])).last_hidden_state[0] for sequence in one.sequences]
    vectors = torch.stack([state[-1] for state in states]) @ model.embedding_head.weight.T
    scales = (states[0][len(one.prompt_ids) - 1] @ model.gate_head.weight.T).softmax(-1)
    return torch.nn.functional.normalize(vectors, dim=-1), scales


def tokens_of(model, run):
    """Token positions, padding included, that went through the backbone."""
    counted = []

    def count(module, arguments, options):
        counted.append((arguments[0] if arguments else options["input_ids"]).numel())

    hook = model.model.register_forward_pre_hook(count, with_kwargs=True)
    try:
        result = run()
    finally:
        hook.remove()
    return result, sum(counted)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_embeddings_and_scales_are_those_of_single_sequences(backbone, batch_size):
    """Prompts longer than a sliding window of 16 among them, and groups larger than a batch."""
    model = build_gpm(backbone, embedding_dim=4)
    found = model.embed_groups(GROUPS, batch_size)
    for one, (embeddings, scales) in zip(GROUPS, found):
        expected, expected_scales = by_hand(model, one)
        assert torch.allclose(embeddings, expected, atol=3e-5)
        assert torch.allclose(scales, expected_scales, atol=3e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("max_batch_tokens", [1, 150, 10_000])
def test_no_result_depends_on_the_token_budget(backbone, max_batch_tokens):
    """Prompts read once, and sequences that are not shared; budgets below one sequence and above all of them."""
    model = build_gpm(backbone, embedding_dim=4)
    groups = [*GROUPS, group(3, 70, 2, 40, seed=4), group(2, 5, seed=5), group(110, 20, 4, seed=6)]
    for one, (embeddings, scales) in zip(groups, model.embed_groups(groups, max_batch_tokens=max_batch_tokens)):
        expected, expected_scales = by_hand(model, one)
        assert torch.allclose(embeddings, expected, rtol=0, atol=3e-5)
        assert torch.allclose(scales, expected_scales, rtol=0, atol=3e-5)


def shapes_of(model, run):
    """Rows and columns of every batch, in turn."""
    shapes = []
    hook = model.model.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    try:
        run()
    finally:
        hook.remove()
    return shapes


def test_batches_are_as_large_as_the_token_budget_allows():
    """20 of 10 tokens, 6 of 30, 1 of 100, one of 250, at most 200 tokens at once."""
    model = build_gpm(embedding_dim=4)
    groups = [group(2, *[8] * 20), group(2, *[28] * 6, seed=1), group(2, 98, seed=2), group(2, 248, seed=3)]
    assert not any(one.prompt_is_worth_sharing for one in groups)
    shapes = shapes_of(model, lambda: model.embed_groups(groups, max_batch_tokens=200))
    # Of 30 tokens six fit in. Nothing joins the long ones, to which it would be padded more than twofold.
    assert shapes == [(1, 250), (1, 100), (6, 30), (20, 10)]


def test_a_long_prompt_holds_up_no_short_ones():
    model = build_gpm(embedding_dim=4)
    groups = [group(200, 20, 20), *(group(20, 4, 3, seed=seed) for seed in range(1, 9))]
    assert all(one.prompt_is_worth_sharing for one in groups)
    shapes = shapes_of(model, lambda: model.embed_groups(groups, max_batch_tokens=440))
    assert shapes == [(1, 200), (2, 20), (8, 20), (16, 4)]
    # In half of the budget the 8 short ones, of 2 x 24 tokens each, are 4 and 4.
    shapes = shapes_of(model, lambda: model.embed_groups(groups, max_batch_tokens=219))
    assert shapes == [(1, 200), (1, 20), (1, 20), (4, 20), (8, 4), (4, 20), (8, 4)]


def test_a_batch_holds_at_least_one():
    model = build_gpm(embedding_dim=4)
    for options in ({"batch_size": 0}, {"max_batch_tokens": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            model.embed_groups(GROUPS, **options)


def test_the_prompt_is_paid_once():
    model = build_gpm(embedding_dim=4)
    one = group(100, 10, 10, 10, 10, 10, 10, 10, 10)
    _, tokens = tokens_of(model, lambda: model.embed_groups([one]))
    assert tokens == 100 + 8 * 10
    _, tokens = tokens_of(model, lambda: model.embed_groups([one], batch_size=4))
    assert tokens == 100 + 8 * 10
    # Two groups share passes: prompts padded to the longer one.
    _, tokens = tokens_of(model, lambda: model.embed_groups([one, group(90, 10, 10, seed=1)]))
    assert tokens == 2 * 100 + 10 * 10


def test_short_prompts_and_single_responses_are_not_shared():
    model = build_gpm(embedding_dim=4)
    _, tokens = tokens_of(model, lambda: model.embed_groups([group(100, 10), group(5, 50, 50, seed=1)]))
    assert tokens == 3 * 110


def test_what_must_not_be_shared_is_not():
    inside = group(50, 5, 5)
    assert inside.prompt_is_worth_sharing
    assert not EncodedGroup(inside.sequences, None).prompt_is_worth_sharing
    assert not EncodedGroup([inside.sequences[0], ids(60, 9)], inside.prompt_ids).prompt_is_worth_sharing
    assert not EncodedGroup([inside.prompt_ids, *inside.sequences], inside.prompt_ids).prompt_is_worth_sharing


def test_a_group_scores_the_same_in_any_company_and_by_any_path():
    tokenizer = build_tokenizer()
    model = build_gpm(embedding_dim=6)
    prompt, responses = "Tell me about bread. " * 6, ["Mix flour.", "No.", "Bake it in a hot oven and let it rest."]
    assert encode_group(tokenizer, prompt, responses).prompt_is_worth_sharing
    alone = model.preference_scores(tokenizer, prompt, responses)
    together = model.preference_scores(tokenizer, ["Why?", prompt, "Long " * 30], [["a", "b"], responses, ["x", "y"]])
    assert torch.allclose(together[1], alone, atol=1e-4)
    assert torch.equal(alone, -alone.T)
    for i, first in enumerate(responses):
        for j, second in enumerate(responses):
            if i != j:  # pairs share less, and single responses nothing
                pair = model.preference_scores(tokenizer, prompt, [first, second])
                assert torch.allclose(pair[0, 1], alone[i, j], atol=1e-4)


def test_gradient_checkpointing_does_not_lose_the_cache():
    """In training it would: the cache is dropped with only a warning. Scoring is done in evaluation mode."""
    model = build_gpm(embedding_dim=4)
    expected = model.embed_groups(GROUPS)[0][0]
    model.gradient_checkpointing_enable()
    model.train()
    assert torch.allclose(model.embed_groups(GROUPS)[0][0], expected, atol=1e-6)
    assert model.training and model.model.training


def test_a_backbone_that_keeps_no_cache_is_an_error(monkeypatch):
    model = build_gpm(embedding_dim=4)
    forward, name = model.model.forward, cache_argument(model.model)
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: forward(*a, **{**k, name: None, "use_cache": False}))
    with pytest.raises(RuntimeError, match="read without their prompt"):
        model.embed_groups([group(50, 5, 5)])


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_caches_name_is_the_backbones(monkeypatch, name):
    """transformers 5.24 renamed the argument, and code that comes with a checkpoint keeps its own: read, not known."""
    model = build_gpm(embedding_dim=4)
    installed, forward = cache_argument(model.model), type(model.model).forward
    groups = [group(50, 5, 5)]
    expected = model.embed_groups(groups)[0][0]
    seen = []

    def with_cache(self, input_ids, attention_mask=None, position_ids=None, cache=None, **kwargs):
        seen.append(cache)
        return forward(self, input_ids, attention_mask, position_ids, **{installed: cache}, **kwargs)

    def with_past_key_values(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        return with_cache(self, input_ids, attention_mask, position_ids, past_key_values, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", with_cache if name == "cache" else with_past_key_values)
    assert cache_argument(model.model) == name
    assert torch.equal(model.embed_groups(groups)[0][0], expected)
    assert len(seen) == 2 and None not in seen, "the prompt is encoded once"


def test_a_backbone_without_a_cache_reads_whole_sequences(monkeypatch):
    model = build_gpm(embedding_dim=4)
    forward, lengths = type(model.model).forward, []
    groups = [group(50, 5, 5)]
    expected = model.embed_groups(groups)[0][0]

    def without_cache(self, input_ids, attention_mask=None, position_ids=None, use_cache=False, return_dict=True):
        lengths.append(input_ids.shape[1])
        return forward(self, input_ids, attention_mask, position_ids)

    monkeypatch.setattr(type(model.model), "forward", without_cache)
    torch.testing.assert_close(model.embed_groups(groups)[0][0], expected, rtol=1e-4, atol=1e-5)
    assert lengths == [55]


def test_longrope_backbones_neither_share_nor_mix_lengths():
    """Phi-3's angles depend on the longest position of a batch: each sequence must be encoded as if alone."""
    from transformers import AutoConfig

    from gpm_hf.modeling import GPMConfig, GPMForPreference
    from tests.conftest import draw_gate

    torch.manual_seed(0)
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    text_config = AutoConfig.for_model(
        "phi3",
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_scaling={"type": "longrope", **factors},
        pad_token_id=0,
        initializer_range=0.3,
    )
    model = draw_gate(GPMForPreference(GPMConfig(text_config=text_config, embedding_dim=4)).eval())
    groups = [group(60, 3, 9, 20), group(40, 5, 2, seed=1), group(90, 1, 4, seed=2)]
    for one, (embeddings, _) in zip(groups, model.embed_groups(groups)):
        assert torch.allclose(embeddings, by_hand(model, one)[0], atol=1e-5)
