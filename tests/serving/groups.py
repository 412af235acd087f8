"""Groups to score, and models that are served in the tests."""

import random

import torch

from tests.conftest import CORPUS, build_gpm, build_tokenizer

WORDS = sorted({word.strip(".,?:") for text in CORPUS for word in text.split()})
# A gate or none, a reward head, Bradley-Terry.
KINDS = {
    "gate": {"embedding_dim": 4},
    "no-gate": {"embedding_dim": 4, "scale_gate": False},
    "reward": {"embedding_dim": 6, "reward_head": True},
    "bradley-terry": {"embedding_dim": 1},
}


def sentence(rng, words):
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + "."


def groups_of_eight(count=8, prompt_words=12, seed=0):
    """Prompts, and eight responses to each."""
    rng = random.Random(seed)
    prompts = [sentence(rng, prompt_words) for _ in range(count)]
    return prompts, [[sentence(rng, rng.randint(1, 12)) for _ in range(8)] for _ in prompts]


def save_model(folder, backbone="llama", **options):
    """A tiny preference model with its tokenizer, as a user has one."""
    model = build_gpm(backbone, **options)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return model


def assert_agree(found, expected, most=5e-4):
    """Log-odds within the bound, the same winner, the same cycles; returns the largest difference."""
    from gpm_hf.modeling import condorcet_winner, has_cycle

    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert float((one - other).abs().max()) <= most
        assert torch.equal(condorcet_winner(one), condorcet_winner(other))
        assert torch.equal(has_cycle(one), has_cycle(other))
    return max(float((one - other).abs().max()) for one, other in zip(found, expected))
