"""The algebra of scores, compared with sums spelled out over indices."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpm_hf.modeling import condorcet_winner, has_cycle, mean_scores, pair_scores, preference_matrix, rank_responses

ROCK_PAPER_SCISSORS = [[0.0, -2.0, 1.0], [2.0, 0.0, -0.5], [-1.0, 0.5, 0.0]]
TRANSITIVE = [[0.0, 1.0, 2.0], [-1.0, 0.0, 0.5], [-2.0, -0.5, 0.0]]


def spelled_out_score(first, second, scales, tau):
    """`<R D v_i, v_j> / tau` with R made of blocks [[0, -1], [1, 0]], entry by entry."""
    total = 0.0
    for block in range(len(first) // 2):
        x, y = float(first[2 * block]), float(first[2 * block + 1])
        turned = (0.0 * x - 1.0 * y, 1.0 * x + 0.0 * y)
        scale = 1.0 if scales is None else float(scales[block])
        total += scale * (turned[0] * float(second[2 * block]) + turned[1] * float(second[2 * block + 1]))
    return total / tau


def spelled_out_matrix(embeddings, scales, tau):
    return np.array([[spelled_out_score(a, b, scales, tau) for b in embeddings] for a in embeddings])


def random_group(seed, responses, blocks, dtype=torch.float32, batch=(), size=1.0):
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(*batch, responses, 2 * blocks, generator=generator, dtype=torch.float64) * size
    scales = torch.rand(*batch, blocks, generator=generator, dtype=torch.float64) * 2
    return embeddings.to(dtype), scales.to(dtype)


def random_tournament(seed, size):
    upper = np.triu(np.random.default_rng(seed).normal(size=(size, size)), 1)
    return torch.tensor(upper - upper.T)


class TestSign:
    def test_operator_turns_the_first_axis_onto_the_second(self):
        """R (1, 0) = (0, 1), so (1, 0) beats (0, 1); with v_i^T R v_j the sign would be the other."""
        scores = preference_matrix(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        assert scores.tolist() == [[0.0, 1.0], [-1.0, 0.0]]

    def test_by_hand_with_scales_and_temperature(self):
        embeddings = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 9.0]])
        # (0.5 (1*6 - 2*5) + 2 (3*9 - 4*7)) / 0.1
        assert preference_matrix(embeddings, torch.tensor([0.5, 2.0]), 0.1)[0, 1].item() == pytest.approx(-40.0)

    @pytest.mark.parametrize("blocks", [1, 2, 3, 5])
    @pytest.mark.parametrize("with_scales", [True, False])
    @pytest.mark.parametrize("tau", [1.0, 0.1])
    def test_matrix_equals_the_spelled_out_sum(self, blocks, with_scales, tau):
        embeddings, scales = random_group(blocks, 4, blocks, torch.float64)
        scales = scales if with_scales else None
        expected = spelled_out_matrix(embeddings, scales, tau)
        np.testing.assert_allclose(preference_matrix(embeddings, scales, tau).numpy(), expected, atol=1e-12)


class TestSkewSymmetry:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        responses=st.integers(1, 7),
        blocks=st.integers(0, 5),
        log_size=st.floats(-4, 4),
        log_tau=st.floats(-3, 2),
        with_scales=st.booleans(),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    )
    def test_exact_in_floating_point(self, seed, responses, blocks, log_size, log_tau, with_scales, dtype):
        """`blocks=0` is Bradley-Terry."""
        embeddings, scales = random_group(seed, responses, max(blocks, 1), dtype, (2,), 10.0**log_size)
        scales = scales if with_scales and blocks else None
        if blocks == 0:
            embeddings = embeddings[..., :1]
        tau = 10.0**log_tau
        scores = preference_matrix(embeddings, scales, tau)
        assert scores.dtype == dtype
        assert scores.isfinite().all()
        assert (scores + scores.transpose(-1, -2) == 0).all()
        for index in range(2):
            alone = preference_matrix(embeddings[index], None if scales is None else scales[index], tau)
            assert (alone + alone.T == 0).all()
            bound = 1e-6 * (embeddings[index].abs().max().double() ** 2 * 20 + 1) / tau
            assert (alone - scores[index]).abs().max() <= (bound if dtype != torch.bfloat16 else 1e4 * bound)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_exchanged_pair_has_the_exact_opposite(self, dtype):
        embeddings, scales = random_group(3, 40, 3, dtype)
        forward = pair_scores(embeddings[:20], embeddings[20:], scales, 0.1)
        backward = pair_scores(embeddings[20:], embeddings[:20], scales, 0.1)
        assert torch.equal(forward, -backward)

    def test_score_does_not_depend_on_the_rest_of_the_group(self):
        embeddings, scales = random_group(5, 6, 3)
        whole = preference_matrix(embeddings, scales, 0.1)
        part = preference_matrix(embeddings[[4, 1]], scales, 0.1)
        assert part[0, 1].item() == pytest.approx(whole[4, 1].item(), abs=1e-5)


class TestBradleyTerry:
    rewards = (0.3, -1.7, 2.2, 0.0)

    @pytest.mark.parametrize("tau", [1.0, 0.1])
    def test_scores_are_differences_of_rewards(self, tau):
        scores = preference_matrix(torch.tensor(self.rewards)[:, None], tau=tau)
        expected = [[(first - second) / tau for second in self.rewards] for first in self.rewards]
        np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)

    def test_scores_are_additive(self):
        """S_ij + S_jl = S_il: what a scalar reward cannot escape, and why it can hold no cycle."""
        scores = preference_matrix(torch.tensor(self.rewards)[:, None])
        for i, j, other in itertools.product(range(4), repeat=3):
            assert abs(scores[i, j] + scores[j, other] - scores[i, other]) < 1e-5
        assert not has_cycle(scores)

    def test_general_scores_are_not_additive(self):
        angles = [0.0, 2 * math.pi / 3, 4 * math.pi / 3]
        scores = preference_matrix(torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles]))
        assert abs(scores[0, 1] + scores[1, 2] - scores[0, 2]) > 1
        assert has_cycle(scores)


class TestPairScores:
    @pytest.mark.parametrize("blocks", [1, 3])
    @pytest.mark.parametrize("with_scales", [True, False])
    def test_are_entries_of_the_matrix(self, blocks, with_scales):
        embeddings, scales = random_group(7, 4, blocks, batch=(3,))
        scales = scales if with_scales else None
        matrix = preference_matrix(embeddings, scales, 0.1)
        for i, j in itertools.product(range(4), repeat=2):
            pairs = pair_scores(embeddings[:, i], embeddings[:, j], scales, 0.1)
            torch.testing.assert_close(pairs, matrix[:, i, j], atol=1e-5, rtol=1e-5)

    def test_bradley_terry_pairs(self):
        pairs = pair_scores(torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [2.5]]), tau=0.5)
        assert pairs.tolist() == [4.0, -3.0]

    def test_one_scale_row_per_pair(self):
        first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        assert pair_scores(first, second, torch.tensor([[2.0], [3.0]])).tolist() == [2.0, 3.0]


class TestMeanScores:
    @pytest.mark.parametrize("include_self", [True, False])
    def test_equal_the_loop(self, include_self):
        scores = random_tournament(0, 5)
        divisor = 5 if include_self else 4
        expected = [sum(float(scores[i, j]) for j in range(5)) / divisor for i in range(5)]
        np.testing.assert_allclose(mean_scores(scores, include_self).numpy(), expected, atol=1e-12)

    def test_include_self_is_the_default(self):
        assert mean_scores(torch.tensor([[0.0, 3.0], [-3.0, 0.0]])).tolist() == [1.5, -1.5]

    def test_batched(self):
        scores = torch.stack([random_tournament(seed, 4) for seed in range(3)])
        np.testing.assert_allclose(mean_scores(scores).numpy(), scores.numpy().sum(-1) / 4, atol=1e-12)

    def test_one_response_has_no_other(self):
        assert mean_scores(torch.zeros(1, 1)).tolist() == [0.0]
        with pytest.raises(ValueError, match="at least two responses"):
            mean_scores(torch.zeros(1, 1), include_self=False)


class TestRanking:
    def test_best_first_by_mean_score(self):
        """Response 2 wins no more often than 0 but by more: the mean score counts how much."""
        scores = torch.tensor([[0.0, 0.1, 0.1], [-0.1, 0.0, -5.0], [-0.1, 5.0, 0.0]])
        assert rank_responses(scores).tolist() == [2, 0, 1]

    def test_equal_responses_keep_their_order(self):
        assert rank_responses(torch.zeros(6, 6)).tolist() == [0, 1, 2, 3, 4, 5]

    def test_batched(self):
        scores = torch.stack([random_tournament(seed, 5) for seed in range(3)])
        for index in range(3):
            means = [float(row.sum()) for row in scores[index]]
            expected = sorted(range(5), key=lambda response: -means[response])
            assert rank_responses(scores)[index].tolist() == expected


class TestCondorcetWinner:
    def test_transitive(self):
        order = [2, 0, 1]
        scores = torch.tensor(TRANSITIVE)[order][:, order]
        assert condorcet_winner(scores).item() == 1

    def test_none_in_a_ring(self):
        assert condorcet_winner(torch.tensor(ROCK_PAPER_SCISSORS)).item() == -1

    def test_a_tie_is_no_win(self):
        assert condorcet_winner(torch.tensor([[0.0, 0.0], [0.0, 0.0]])).item() == -1

    def test_may_stand_above_a_ring(self):
        scores = torch.zeros(4, 4)
        scores[:3, :3] = torch.tensor(ROCK_PAPER_SCISSORS)
        scores[3, :3], scores[:3, 3] = 0.1, -0.1
        assert condorcet_winner(scores).item() == 3
        assert has_cycle(scores)

    def test_batched_equals_loop(self):
        scores = torch.stack([random_tournament(seed, 4) for seed in range(30)])
        expected = []
        for matrix in scores:
            winners = [i for i in range(4) if all(matrix[i, j] > 0 for j in range(4) if j != i)]
            expected.append(winners[0] if winners else -1)
        assert {-1} < set(expected)
        assert condorcet_winner(scores).tolist() == expected


class TestHasCycle:
    def test_rock_paper_scissors(self):
        assert has_cycle(torch.tensor(ROCK_PAPER_SCISSORS)).item() is True

    def test_transitive(self):
        assert has_cycle(torch.tensor(TRANSITIVE)).item() is False

    @pytest.mark.parametrize("first", [1.0, -1.0])
    @pytest.mark.parametrize("second", [1.0, -1.0])
    def test_ring_of_four(self, first, second):
        """Without ties a ring of four contains one of three, whichever way its diagonals point."""
        scores = torch.zeros(4, 4)
        for i in range(4):
            scores[i, (i + 1) % 4] = 1.0
        scores[0, 2], scores[1, 3] = first, second
        scores = torch.where(scores == 0, -scores.T, scores)
        assert has_cycle(scores).item() is True

    def test_one_and_two_responses(self):
        assert not has_cycle(torch.zeros(1, 1))
        assert not has_cycle(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))

    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**31), size=st.integers(3, 6))
    def test_equals_counting_wins(self, seed, size):
        """A tournament is free of cycles exactly when all its numbers of wins differ."""
        scores = random_tournament(seed, size)
        wins = sorted(sum(bool(entry > 0) for entry in row) for row in scores)
        assert has_cycle(scores).item() == (wins != list(range(size)))

    def test_batched(self):
        scores = torch.tensor([ROCK_PAPER_SCISSORS, TRANSITIVE])
        assert has_cycle(scores).tolist() == [True, False]


class TestShapeErrors:
    @pytest.mark.parametrize("dim", [3, 5])
    def test_odd_dimension(self, dim):
        with pytest.raises(ValueError, match=f"dimension {dim}.*even"):
            preference_matrix(torch.ones(2, dim))
        with pytest.raises(ValueError, match=f"dimension {dim}.*even"):
            pair_scores(torch.ones(2, dim), torch.ones(2, dim))

    @pytest.mark.parametrize("scales", [1, 3, 4])
    def test_wrong_number_of_scales(self, scales):
        """One scale would broadcast over both blocks and give a wrong number."""
        with pytest.raises(ValueError, match="one scale per block"):
            preference_matrix(torch.ones(2, 4), torch.ones(scales))
        with pytest.raises(ValueError, match="one scale per block"):
            pair_scores(torch.ones(2, 4), torch.ones(2, 4), torch.ones(scales))

    def test_bradley_terry_has_no_scales(self):
        with pytest.raises(ValueError, match="scales"):
            preference_matrix(torch.ones(2, 1), torch.ones(1))

    @pytest.mark.parametrize(("first", "second"), [(4, 2), (2, 4), (2, 1), (1, 2)])
    def test_embeddings_of_two_dimensions(self, first, second):
        with pytest.raises(ValueError, match="dimension"):
            pair_scores(torch.ones(3, first), torch.ones(3, second))
