"""The model, compared with what its backbone's hidden states give by hand."""

import copy
import math

import numpy as np
import pytest
import torch

from gpm_hf import GPMConfig, GPMForPreference, GPMOutput
from tests.conftest import BACKBONES, backbone_config, build_gpm, build_tokenizer, draw_gate, save_backbone

QUESTION = "What is the capital of France?"
RESPONSES = ["Paris.", "The capital of France is Paris, a city on the river Seine.", "Bake it in a hot oven"]


def texts_by_hand(question, responses):
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return prompt, [f"{prompt}{response}<|im_end|>\n" for response in responses]


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def states_by_hand(model, tokenizer, question, responses):
    """Last states of each response and of the prompt: each sequence alone, no mask, through the bare backbone."""
    prompt, texts = texts_by_hand(question, responses)
    last = []
    for text in texts:
        states = model.model(input_ids=torch.tensor([ids_of(tokenizer, text)])).last_hidden_state[0]
        last.append(states[-1].double().numpy())
        border = states[len(ids_of(tokenizer, prompt)) - 1].double().numpy()
    return np.array(last), border


def embeddings_by_hand(model, states):
    embeddings = states @ model.embedding_head.weight.detach().double().numpy().T
    if model.config.normalize_embeddings:
        embeddings = embeddings / np.sqrt((embeddings**2).sum(-1, keepdims=True))
    return embeddings


def gate_by_hand(model, state):
    return model.gate_head.weight.detach().double().numpy() @ state


def scores_by_hand(embeddings, scales, tau):
    def score(first, second):
        total = 0.0
        for block in range(embeddings.shape[-1] // 2):
            x, y = 2 * block, 2 * block + 1
            total += scales[block] * (first[x] * second[y] - first[y] * second[x])
        return total / tau

    return np.array([[score(first, second) for second in embeddings] for first in embeddings])


class TestAgainstHandComputation:
    @pytest.mark.parametrize("backbone", ["llama", "gpt2"])
    @pytest.mark.parametrize("normalize", [True, False])
    def test_softmax_gate(self, backbone, normalize, tokenizer):
        model = build_gpm(backbone, embedding_dim=6, normalize_embeddings=normalize)
        states, border = states_by_hand(model, tokenizer, QUESTION, RESPONSES)
        expected = embeddings_by_hand(model, states)
        gate = np.exp(gate_by_hand(model, border))
        gate = gate / gate.sum()
        assert gate.max() - gate.min() > 0.05, "a gate that is uniform shows nothing"

        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert embeddings.shape == (3, 6)
        assert scales.shape == (3,)
        size = 1 if normalize else np.abs(expected).max()
        np.testing.assert_allclose(embeddings.numpy(), expected, atol=1e-5 * size)
        np.testing.assert_allclose(scales.numpy(), gate, atol=1e-5)
        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES)
        by_hand = scores_by_hand(expected, gate, 0.1)
        np.testing.assert_allclose(scores.numpy(), by_hand, atol=1e-4 * size**2)
        assert torch.equal(scores, -scores.T)

    def test_softplus_gate(self, tokenizer):
        model = build_gpm(embedding_dim=4, gate_activation="softplus")
        _, border = states_by_hand(model, tokenizer, QUESTION, RESPONSES)
        scales = model.embed(tokenizer, QUESTION, RESPONSES)[1]
        expected = [math.log1p(math.exp(value)) for value in gate_by_hand(model, border)]
        np.testing.assert_allclose(scales.numpy(), expected, atol=1e-5)
        assert abs(sum(expected) - 1) > 0.05, "these scales sum to one like those of a softmax"

    def test_no_gate(self, tokenizer):
        model = build_gpm(embedding_dim=4, scale_gate=False)
        assert model.gate_head is None
        states, _ = states_by_hand(model, tokenizer, QUESTION, RESPONSES)
        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert scales is None
        expected = embeddings_by_hand(model, states)
        np.testing.assert_allclose(embeddings.numpy(), expected, atol=1e-5)
        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES).numpy()
        np.testing.assert_allclose(scores, scores_by_hand(expected, (1.0, 1.0), 0.1), atol=1e-4)

    def test_bradley_terry(self, tokenizer):
        model = build_gpm(embedding_dim=1, tau=0.5)
        states, _ = states_by_hand(model, tokenizer, QUESTION, RESPONSES)
        rewards = states @ model.embedding_head.weight.detach().double().numpy()[0]
        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert scales is None
        np.testing.assert_allclose(embeddings.numpy()[:, 0], rewards, atol=2e-5)
        expected = [[(first - second) / 0.5 for second in rewards] for first in rewards]
        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)

    @pytest.mark.parametrize("tau", [0.1, 2.0])
    def test_log_odds_are_divided_by_tau(self, tau, tokenizer):
        model = build_gpm(embedding_dim=4, tau=tau)
        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        expected = scores_by_hand(embeddings.double().numpy(), scales.double().numpy(), tau)
        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES)
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-4)


class TestRewardHead:
    """S_ij = (r_i - r_j + raw_ij) / tau: a scalar reward beside the blocks."""

    inputs = {"input_ids": torch.tensor([[5, 60, 70], [9, 61, 71]]), "prompt_lengths": torch.tensor([1, 1])}

    @pytest.mark.parametrize("scale_gate", [True, False])
    @pytest.mark.parametrize(("dimension", "normalize"), [(2, True), (4, True), (4, False)])
    def test_scores_by_hand(self, dimension, normalize, scale_gate, tokenizer):
        model = build_gpm(
            embedding_dim=dimension, normalize_embeddings=normalize, scale_gate=scale_gate, reward_head=True
        )
        states, border = states_by_hand(model, tokenizer, QUESTION, RESPONSES)
        rewards = states @ model.reward_head.weight.detach().double().numpy()[0]
        assert rewards.max() - rewards.min() > 0.1, "rewards that are alike show nothing"
        scales = np.ones(dimension // 2)
        if scale_gate:
            scales = np.exp(gate_by_hand(model, border))
            scales = scales / scales.sum()
        raw = scores_by_hand(embeddings_by_hand(model, states), scales, 1.0)
        expected = (rewards[:, None] - rewards[None, :] + raw) / 0.1

        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES)
        np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=2e-4)
        assert torch.equal(scores, -scores.T)
        for i, j in ((0, 1), (2, 0)):
            probability = model.compare(tokenizer, QUESTION, RESPONSES[i], RESPONSES[j])
            assert probability == pytest.approx(1 / (1 + math.exp(-expected[i, j])), abs=1e-4)
        assert model.rank(tokenizer, QUESTION, RESPONSES) == np.argsort(-expected.mean(1)).tolist()

    @pytest.mark.parametrize("scale_gate", [True, False])
    def test_it_is_a_block_of_the_embeddings(self, scale_gate, tokenizer):
        """(r, 1) with scale 1: `preference_matrix` and `pair_scores` need not know of it."""
        from gpm_hf import pair_scores, preference_matrix

        model = build_gpm(embedding_dim=4, scale_gate=scale_gate, reward_head=True)
        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert embeddings.shape == (3, 6) and embeddings.dtype == torch.float32
        assert (embeddings[:, 5] == 1).all()
        assert embeddings[:, :4].norm(dim=-1).tolist() == pytest.approx([1, 1, 1])
        assert scales is None if not scale_gate else (scales.shape == (3,) and scales[2] == 1)
        scores = preference_matrix(embeddings, scales, 0.1)
        assert torch.equal(scores, model.preference_scores(tokenizer, QUESTION, RESPONSES))
        assert torch.equal(scores[0, 1], pair_scores(embeddings[0], embeddings[1], scales, 0.1))

    @pytest.mark.parametrize("size", [1.0, 1e4])
    def test_scores_are_skew_symmetric_exactly_whatever_the_rewards(self, size):
        from gpm_hf import pair_scores, preference_matrix

        generator = torch.Generator().manual_seed(0)
        heads = torch.nn.functional.normalize(torch.randn(40, 4, generator=generator), dim=-1)
        rewards = size * torch.randn(40, 1, generator=generator)
        embeddings = torch.cat([heads, rewards, torch.ones(40, 1)], -1)
        for scales in (None, torch.tensor([0.3, 0.7, 1.0])):
            scores = preference_matrix(embeddings, scales, 0.1)
            assert torch.equal(scores, -scores.T)
            forth = pair_scores(embeddings[:20], embeddings[20:], scales, 0.1)
            assert torch.equal(forth, -pair_scores(embeddings[20:], embeddings[:20], scales, 0.1))

    def test_new_rewards_are_equal(self, backbone_folder, tokenizer):
        """Training then begins with what the blocks say."""
        model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4, reward_head=True)
        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert embeddings[:, 4].tolist() == [0, 0, 0]
        assert scales.tolist() == [0.5, 0.5, 1]

    def test_names_and_shapes(self):
        model = build_gpm(embedding_dim=4, reward_head=True)
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters() if "model." not in name}
        heads = {"embedding_head": (4, 32), "gate_head": (2, 32), "reward_head": (1, 32)}
        assert shapes == {f"{name}.weight": shape for name, shape in heads.items()}
        assert list(model.heads()) == list(heads)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_computes_in_float32(self, dtype, backbone_folder, tmp_path):
        model = draw_gate(
            GPMForPreference.from_backbone(backbone_folder, embedding_dim=4, reward_head=True, dtype=dtype)
        ).eval()
        model.save_pretrained(tmp_path)
        again = GPMForPreference.from_pretrained(tmp_path, dtype=dtype)
        assert again.reward_head.weight.dtype == torch.float32
        assert torch.equal(again.reward_head.weight, model.reward_head.weight)
        with torch.autocast("cpu", dtype=dtype):
            output = again(**self.inputs)
        exact = output.response_states.double() @ model.reward_head.weight.double().T
        assert (exact - exact.to(dtype)).abs().max() > 1e-4, "here half precision would not show"
        torch.testing.assert_close(output.embeddings[:, 4:5].double(), exact, atol=0, rtol=1e-5)

    def test_gradients_reach_it(self):
        model = build_gpm(embedding_dim=4, reward_head=True)
        loss_of(model).backward()
        for name, head in model.heads().items():
            assert head.weight.grad.abs().max() > 1e-6, name


class TestForward:
    def test_states_of_an_earlier_output_give_the_same(self, gpm, tokenizer):
        ids = torch.tensor([ids_of(tokenizer, texts_by_hand(QUESTION, RESPONSES)[1][1])])
        first = gpm(input_ids=ids, prompt_lengths=torch.tensor([7]))
        again = gpm(response_states=first.response_states, prompt_states=first.prompt_states)
        assert torch.equal(first.embeddings, again.embeddings)
        assert torch.equal(first.scales, again.scales)

    def test_no_mask_means_no_padding(self, gpm):
        ids = torch.tensor([[5, 60, 0, 0]])
        with_mask = gpm(input_ids=ids, attention_mask=torch.ones_like(ids), prompt_lengths=torch.tensor([2]))
        without = gpm(input_ids=ids, prompt_lengths=torch.tensor([2]))
        assert torch.equal(with_mask.embeddings, without.embeddings)

    def test_gate_without_prompt_lengths(self, gpm):
        with pytest.raises(ValueError, match=r"scale gate.*prompt_lengths"):
            gpm(input_ids=torch.tensor([[5, 6, 7]]))

    def test_no_input(self, gpm):
        with pytest.raises(ValueError, match="input_ids"):
            gpm(prompt_lengths=torch.tensor([1]))

    @pytest.mark.parametrize("length", [0, -1, 3, 5])
    @pytest.mark.parametrize("side", ["left", "right"])
    def test_prompt_longer_than_its_sequence(self, gpm, length, side):
        """Padding does not count: here two tokens of four columns."""
        mask = torch.tensor([[0, 0, 1, 1]] if side == "left" else [[1, 1, 0, 0]])
        with pytest.raises(ValueError, match=r"prompt_lengths \[" + str(length)):
            gpm(input_ids=mask + 5, attention_mask=mask, prompt_lengths=torch.tensor([length]))

    def test_gateless_model_needs_no_prompt_lengths(self):
        output = build_gpm(embedding_dim=4, scale_gate=False)(input_ids=torch.tensor([[5, 6, 7]]))
        assert output.scales is None
        assert output.embeddings.shape == (1, 4)

    def test_arguments_that_the_backbone_gets(self, gpm):
        """PEFT passes every argument that a model could have as None; `use_cache=None` would fill a cache."""
        given = {}
        hook = gpm.model.register_forward_pre_hook(lambda _, args, kwargs: given.update(kwargs), with_kwargs=True)
        try:
            options = {"inputs_embeds": None, "use_cache": None, "return_dict": None, "output_hidden_states": True}
            output = gpm(input_ids=torch.tensor([[5, 6]]), prompt_lengths=torch.tensor([1]), **options)
        finally:
            hook.remove()
        assert isinstance(output, GPMOutput)
        assert None not in [value for value in given.values() if not isinstance(value, torch.Tensor)]
        assert (given["use_cache"], given["return_dict"], given["output_hidden_states"]) == (False, True, True)


class TestNotARewardModel:
    """GRPO reads `logits[:, 0]` of any reward model, and RewardTrainer trains on them: errors beat wrong numbers."""

    def test_output_has_no_logits(self, gpm):
        output = gpm(input_ids=torch.tensor([[5, 6]]), prompt_lengths=torch.tensor([1]))
        assert "logits" not in output
        assert not hasattr(output, "logits")

    def test_model_has_no_score_attribute(self, gpm):
        assert not hasattr(gpm, "score")

    def test_is_no_sequence_classifier(self, gpm):
        from transformers import AutoModelForSequenceClassification
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

        assert GPMConfig not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        with pytest.raises(ValueError, match="GPMConfig"):
            AutoModelForSequenceClassification.from_config(gpm.config)


class TestCompareAndRank:
    def test_compare_is_the_sigmoid_of_the_log_odds(self, gpm, tokenizer):
        score = gpm.preference_scores(tokenizer, QUESTION, RESPONSES[:2])[0, 1].item()
        probability = gpm.compare(tokenizer, QUESTION, *RESPONSES[:2])
        assert isinstance(probability, float)
        assert 0 < probability < 1
        assert abs(score) > 0.1, "a score near zero shows nothing"
        assert probability == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)
        assert gpm.compare(tokenizer, QUESTION, *RESPONSES[1::-1]) == pytest.approx(1 - probability, abs=1e-6)

    def test_equal_responses_are_even(self, gpm, tokenizer):
        assert gpm.compare(tokenizer, QUESTION, "Paris.", "Paris.") == pytest.approx(0.5, abs=1e-4)

    def test_rank_by_mean_score(self, gpm, tokenizer):
        responses = [*RESPONSES, "red", "blue and green"]
        means = [sum(row) / 5 for row in gpm.preference_scores(tokenizer, QUESTION, responses).tolist()]
        ranking = gpm.rank(tokenizer, QUESTION, responses)
        assert ranking == sorted(range(5), key=lambda index: -means[index])
        assert all(type(index) is int for index in ranking)

    @pytest.mark.parametrize("responses", [[], ["Paris."]], ids=len)
    def test_rank_needs_two_responses(self, gpm, tokenizer, responses):
        with pytest.raises(ValueError, match=f"at least two responses, got {len(responses)}"):
            gpm.rank(tokenizer, QUESTION, responses)

    def test_rank_needs_two_responses_to_every_prompt(self, gpm, tokenizer):
        with pytest.raises(ValueError, match="at least two responses, got 1"):
            gpm.rank(tokenizer, [QUESTION, "Why?"], [RESPONSES, ["Paris."]])

    def test_rank_of_one_string(self, gpm, tokenizer):
        with pytest.raises(ValueError, match="must be a list"):
            gpm.rank(tokenizer, QUESTION, "Paris.")


class TestManyPrompts:
    prompts = (QUESTION, [{"role": "user", "content": "How do I bake bread?"}], "Why?")
    groups = (RESPONSES, ["Mix flour, water and salt"], ["red", "green and blue", "rock", "paper, scissors"])

    def test_ragged_groups_equal_single_calls(self, gpm, tokenizer):
        scores = gpm.preference_scores(tokenizer, list(self.prompts), list(self.groups))
        assert [tuple(one.shape) for one in scores] == [(3, 3), (1, 1), (4, 4)]
        for prompt, group, one in zip(self.prompts, self.groups, scores, strict=True):
            alone = gpm.preference_scores(tokenizer, prompt, group)
            torch.testing.assert_close(one, alone, atol=1e-4, rtol=0)

    @pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
    def test_batch_size_does_not_matter(self, gpm, tokenizer, batch_size):
        expected = gpm.preference_scores(tokenizer, list(self.prompts), list(self.groups))
        scores = gpm.preference_scores(tokenizer, list(self.prompts), list(self.groups), batch_size=batch_size)
        for one, other in zip(scores, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)

    def test_rank_gives_a_ranking_for_each(self, gpm, tokenizer):
        prompts, groups = [self.prompts[0], self.prompts[2]], [self.groups[0], self.groups[2]]
        alone = [gpm.rank(tokenizer, prompt, group) for prompt, group in zip(prompts, groups, strict=True)]
        assert gpm.rank(tokenizer, prompts, groups) == alone

    def test_one_list_of_responses_to_two_prompts(self, gpm, tokenizer):
        with pytest.raises(ValueError, match="2 prompts need as many lists of responses, got 3"):
            gpm.preference_scores(tokenizer, [QUESTION, "Why?"], RESPONSES)

    def test_flat_list_of_responses_as_long_as_the_prompts(self, gpm, tokenizer):
        with pytest.raises(ValueError, match="must be a list"):
            gpm.preference_scores(tokenizer, [QUESTION, "Why?"], ["Paris.", "Because"])


class TestEvaluationMode:
    def test_dropout_is_off_and_the_mode_comes_back(self, tokenizer):
        torch.manual_seed(0)
        config = backbone_config("llama", attention_dropout=0.5)
        model = GPMForPreference(GPMConfig(text_config=config, embedding_dim=4)).eval()
        expected, expected_scales = model.embed(tokenizer, QUESTION, RESPONSES)
        model.train()
        ids = torch.tensor([ids_of(tokenizer, texts_by_hand(QUESTION, RESPONSES)[1][1])])
        noisy = [model(input_ids=ids, prompt_lengths=torch.tensor([7])).embeddings for _ in range(2)]
        assert (noisy[0] - noisy[1]).abs().max() > 1e-3, "the dropout of this test does nothing"

        embeddings, scales = model.embed(tokenizer, QUESTION, RESPONSES)
        assert torch.equal(embeddings, expected)
        assert torch.equal(scales, expected_scales)
        assert model.training
        assert all(module.training for module in model.modules())

    def test_mode_comes_back_after_an_error(self, tokenizer):
        model = build_gpm(embedding_dim=4).train()
        model.model.embed_tokens.weight.data.fill_(float("nan"))
        with pytest.raises(ValueError, match="not finite"):
            model.embed(tokenizer, QUESTION, RESPONSES)
        assert model.training

    def test_evaluation_mode_stays(self, gpm, tokenizer):
        gpm.embed(tokenizer, QUESTION, RESPONSES)
        assert not gpm.training

    def test_frozen_part_stays_in_evaluation_mode(self, tokenizer):
        model = build_gpm(embedding_dim=4).train()
        model.model.eval()
        model.embed(tokenizer, QUESTION, RESPONSES)
        assert model.training
        assert not model.model.training

    def test_embeddings_carry_no_graph(self, gpm, tokenizer):
        embeddings, scales = gpm.embed(tokenizer, QUESTION, RESPONSES)
        assert not embeddings.requires_grad
        assert not scales.requires_grad


def assert_heads_are_float32(model, output):
    """The heads' arithmetic, not only their type: a head rounded to bfloat16 is off by about 1e-2."""
    assert output.embeddings.dtype == output.scales.dtype == torch.float32
    for head, states, values in (
        (model.embedding_head, output.response_states, output.embeddings),
        (model.gate_head, output.prompt_states, output.scales),
    ):
        weight = head.weight.detach()
        assert weight.dtype == torch.float32
        exact = states.detach().double() @ weight.double().T
        rounded = (states.detach().bfloat16() @ weight.bfloat16().T).double()
        if head is model.embedding_head:
            exact, rounded = (x / x.norm(dim=-1, keepdim=True) for x in (exact, rounded))
        else:
            exact, rounded = (x.exp() / x.exp().sum(-1, keepdim=True) for x in (exact, rounded))
        assert (exact - rounded).abs().max() > 1e-4, "here bfloat16 would not show"
        torch.testing.assert_close(values.detach().double(), exact, atol=2e-6, rtol=0)


class TestFloat32Heads:
    inputs = {
        "input_ids": torch.tensor([[5, 60, 70, 80, 90], [9, 61, 71, 81, 91]]),
        "prompt_lengths": torch.tensor([2, 3]),
    }

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_from_backbone(self, dtype, backbone_folder):
        torch.manual_seed(0)
        model = draw_gate(GPMForPreference.from_backbone(backbone_folder, embedding_dim=4, dtype=dtype)).eval()
        assert {parameter.dtype for parameter in model.model.parameters()} == {dtype}
        output = model(**self.inputs)
        assert output.response_states.dtype == dtype
        assert_heads_are_float32(model, output)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_from_saved_model(self, dtype, gpm, tmp_path):
        gpm.save_pretrained(tmp_path)
        model = GPMForPreference.from_pretrained(tmp_path, dtype=dtype)
        assert {parameter.dtype for parameter in model.model.parameters()} == {dtype}
        assert_heads_are_float32(model, model(**self.inputs))
        assert torch.equal(model.embedding_head.weight, gpm.embedding_head.weight)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_autocast(self, dtype, gpm):
        with torch.autocast("cpu", dtype=dtype):
            output = gpm(**self.inputs)
        plain = gpm(**self.inputs)
        assert not torch.equal(output.response_states.float(), plain.response_states), "autocast did nothing"
        assert_heads_are_float32(gpm, output)

    def test_heads_cast_by_hand_compute_in_float32(self, gpm):
        """`model.to(bfloat16)` rounds the heads' weights; the arithmetic stays float32."""
        model = copy.deepcopy(gpm).to(torch.bfloat16)
        output = model(**self.inputs)
        assert output.embeddings.dtype == torch.float32
        exact = output.response_states.double() @ model.embedding_head.weight.double().T
        exact = exact / exact.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(output.embeddings.double(), exact, atol=2e-6, rtol=0)

    def test_log_odds_of_a_bfloat16_model_are_skew_symmetric(self, gpm, tokenizer):
        model = copy.deepcopy(gpm).to(torch.bfloat16)
        scores = model.preference_scores(tokenizer, QUESTION, RESPONSES)
        assert scores.dtype == torch.float32
        assert (scores + scores.T == 0).all()


class TestBrokenInput:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("where", ["embedding_head.weight", "gate_head.weight", "model.norm.weight"])
    def test_weights_that_are_not_finite(self, value, where, gpm, tokenizer):
        model = copy.deepcopy(gpm)
        model.get_parameter(where).data[0] = value
        with pytest.raises(ValueError, match=r"not finite.*weights contain NaN"):
            model.preference_scores(tokenizer, QUESTION, RESPONSES)

    @pytest.mark.parametrize("backbone", ["llama", "gpt2"])
    def test_prompt_longer_than_the_context(self, backbone, tokenizer):
        model = build_gpm(backbone, embedding_dim=4)
        with pytest.raises(ValueError, match=r"has \d+ tokens, but the backbone's context holds 256"):
            model.preference_scores(tokenizer, "a long prompt " * 60, RESPONSES)

    def test_prompt_that_just_fits(self, plain_tokenizer):
        model = build_gpm("gpt2", embedding_dim=4)
        # A sign that the tokenizer never merges; EOS is one token more.
        response = "~" * (255 - len(ids_of(plain_tokenizer, "Hm")))
        assert model.embed(plain_tokenizer, "Hm", [response])[0].shape == (1, 4)
        with pytest.raises(ValueError, match="257 tokens"):
            model.embed(plain_tokenizer, "Hm", [response + "~"])


def loss_of(model, ids=((5, 60, 1, 80, 90), (9, 61, 71, 81, 1))):
    from gpm_hf import pair_scores

    output = model(input_ids=torch.tensor(ids), prompt_lengths=torch.tensor([2, 2]))
    return torch.nn.functional.softplus(-pair_scores(*output.embeddings, output.scales[0], 0.1))


class TestGradients:
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_reach_heads_and_backbone(self, backbone):
        model = build_gpm(backbone, embedding_dim=4)
        loss_of(model).backward()
        for name in ("embedding_head.weight", "gate_head.weight"):
            assert model.get_parameter(name).grad.abs().max() > 1e-6, name
        without = [
            name
            for name, parameter in model.model.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
        ]
        # Attention does not see a constant added to all keys.
        assert [name for name in without if "k_proj.bias" not in name] == []

    def test_equal_finite_differences(self):
        """The step is wide and the tolerance loose, for this is float32."""
        model = build_gpm(embedding_dim=4)
        loss_of(model).backward()
        step = 2e-3
        for name, index in (
            ("embedding_head.weight", (1, 3)),
            ("gate_head.weight", (0, 5)),
            ("model.embed_tokens.weight", (60, 2)),
        ):
            parameter = model.get_parameter(name)
            losses = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter[index] += sign * step
                    losses.append(loss_of(model).item())
                    parameter[index] -= sign * step
            difference = (losses[0] - losses[1]) / (2 * step)
            assert parameter.grad[index].item() == pytest.approx(difference, rel=0.05, abs=5e-3), name

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_embedding_of_eos_is_trained_where_it_pads(self, backbone):
        """`padding_idx` would zero the gradient of EOS where padding has the same id."""
        torch.manual_seed(0)
        config = backbone_config(backbone, pad_token_id=1, eos_token_id=1)
        model = GPMForPreference(GPMConfig(text_config=config, embedding_dim=4))
        loss_of(model).backward()
        assert model.get_input_embeddings().weight.grad[1].abs().max() > 1e-6

    def test_embedding_of_eos_is_trained_after_loading(self, tmp_path):
        folder = save_backbone(tmp_path / "lm", tokenizer=build_tokenizer(pad_is_eos=True), pad_token_id=1)
        started = GPMForPreference.from_backbone(folder, embedding_dim=4)
        started.save_pretrained(tmp_path / "gpm")
        for model in (started, GPMForPreference.from_pretrained(tmp_path / "gpm")):
            loss_of(model).backward()
            assert model.get_input_embeddings().weight.grad[1].abs().max() > 1e-6

    def test_checkpointing_gives_the_same_gradients(self):
        model = build_gpm(embedding_dim=4).train()
        loss_of(model).backward()
        expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        model.gradient_checkpointing_enable()
        assert model.model.is_gradient_checkpointing
        loss_of(model).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


class TestParameters:
    def test_names_and_shapes(self, gpm):
        shapes = {name: tuple(value.shape) for name, value in gpm.named_parameters() if not name.startswith("model.")}
        assert shapes == {"embedding_head.weight": (4, 32), "gate_head.weight": (2, 32)}

    def test_bradley_terry_has_one_row_and_no_gate(self):
        model = build_gpm(embedding_dim=1)
        shapes = {name: tuple(v.shape) for name, v in model.named_parameters() if not name.startswith("model.")}
        assert shapes == {"embedding_head.weight": (1, 32)}

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
    def test_backbone_ignores_a_stale_dtype(self, dtype):
        """A text configuration that remembers bfloat16 would give a bfloat16 backbone under float32 heads."""
        config = backbone_config("llama", dtype=dtype)
        model = GPMForPreference(GPMConfig(text_config=config, embedding_dim=4))
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
