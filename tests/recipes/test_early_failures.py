"""Mistakes of a long job: found before its first sample, and mended without losing what they did not touch."""

import json

import pytest

from gpm_hf.generation import PolicySampler
from gpm_hf.recipes import iterate as job
from tests.conftest import build_gpm, build_tokenizer
from tests.recipes.test_iterate import options_of, read, run, same, weights, world  # noqa: F401

FILES = ("prompts.jsonl", "iterate.json", "iteration-1/samples.jsonl", "iteration-1/scored.jsonl")


@pytest.fixture
def sampled(monkeypatch):
    """The prompts of every call of the sampler."""
    calls = []
    original = PolicySampler.sample

    def counted(self, prompts, seed):
        calls.append(prompts)
        return original(self, prompts, seed)

    monkeypatch.setattr(PolicySampler, "sample", counted)
    return calls


@pytest.fixture(scope="module")
def clean(world, tmp_path_factory):  # noqa: F811
    """One iteration without a mistake."""
    output = tmp_path_factory.mktemp("clean")
    run(world, output, iterations=1)
    return output


def is_as_clean(output, clean):
    assert all((output / name).read_bytes() == (clean / name).read_bytes() for name in FILES)
    assert same(*(weights(folder / "iteration-1" / "policy") for folder in (output, clean)))
    assert {path.name for path in (output / "iteration-1").iterdir()} == {"samples.jsonl", "scored.jsonl", "policy"}


def test_each_mistake_is_found_before_the_first_sample(world, clean, sampled, tmp_path):  # noqa: F811
    (tmp_path / "long.jsonl").write_text(
        "\n".join(json.dumps({"prompt": text}) for text in ["Short?"] * 7 + ["How? " * 300])
    )
    (tmp_path / "columns.jsonl").write_text(json.dumps({"question": "Short?"}))
    (tmp_path / "roles.jsonl").write_text(json.dumps({"prompt": [{"content": "Short?"}]}))
    short = tmp_path / "short"
    config = build_gpm(embedding_dim=4).config
    config.text_config.max_position_embeddings = 12
    from gpm_hf import GPMForPreference

    GPMForPreference(config).save_pretrained(short)
    build_tokenizer().save_pretrained(short)
    output = tmp_path / "out"
    for mistake, message in (
        ({"scorer": "gpm:"}, "describes no scorer"),
        ({"scorer": f"gpm:{world / 'policy'}"}, "not a preference model"),
        ({"scorer": f"reward:{world / 'gpm'}"}, "GPMScorer"),
        ({"scorer": f"gpm:{short}"}, r"row 1: .* cannot read this prompt: the prompt with a response"),
        # The last prompt is of the second iteration.
        (
            {
                "prompts": str(tmp_path / "long.jsonl"),
                "prompts_per_iteration": 4,
                "iterations": 2,
                "scorer": "random",
            },
            r"prompts.jsonl, row 8 has \d+ tokens",
        ),
        ({"prompts": str(tmp_path / "columns.jsonl")}, "row 1 has no prompt"),
        ({"prompts": str(tmp_path / "roles.jsonl")}, "row 1"),
        ({"prompts": str(tmp_path / "none.jsonl")}, "data file .*none"),
        ({"prompts_per_iteration": 9}, "need 9 prompts, and there are 8"),
        ({"max_new_tokens": 400, "scorer": "constant"}, r"row 1 has \d+ tokens; with max_new_tokens=400"),
        # Options of the training.
        ({"learning_rate": -1.0}, "options of the training are refused: Invalid learning rate"),
        ({"lr_scheduler_kwargs": {"lowest": 0}}, "are refused: .* unexpected keyword argument 'lowest'"),
        ({"per_device_train_batch_size": 0}, "batch_size=0: at least 1"),
        ({"gradient_accumulation_steps": 0}, "gradient_accumulation_steps=0"),
        ({"per_device_train_batch_size": 9, "dataloader_drop_last": True}, "has 8 rows, but one batch needs 9"),
        ({"max_length": 3}, "longer than max_length=3"),
        ({"model_init_kwargs": {"dtype": "float31"}}, "float31"),
        ({"method": "dpo", "optim": "no_optimizer"}, "no_optimizer"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            run(world, output, **{"iterations": 1, **mistake})
        assert not sampled and not list(output.glob("iteration-*/samples.jsonl"))
    # What was tried before binds nobody.
    run(world, output, iterations=1)
    is_as_clean(output, clean)


def test_samples_outlive_another_scorer_and_scores_another_training(world, clean, sampled, tmp_path, monkeypatch):  # noqa: F811
    def fail(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(job, "_score", fail)
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path, iterations=1, scorer="random", max_steps=1)
    assert len(sampled) == 3
    with monkeypatch.context() as patch:
        patch.setattr(job, "train_policy", fail)
        with pytest.raises(KeyboardInterrupt):
            run(world, tmp_path, iterations=1, max_steps=1)
    scored = (tmp_path / "iteration-1" / "scored.jsonl").stat().st_mtime_ns
    run(world, tmp_path, iterations=1)
    assert len(sampled) == 3 and (tmp_path / "iteration-1" / "scored.jsonl").stat().st_mtime_ns == scored
    is_as_clean(tmp_path, clean)
    # Now something was made with each of them.
    with pytest.raises(ValueError, match=r"scorer was .*, is 'random'.*remove .*scored.jsonl and all that came after"):
        run(world, tmp_path, iterations=1, scorer="random")
    with pytest.raises(ValueError, match=r"training.max_steps was 2, is 1.*remove .*policy and all"):
        run(world, tmp_path, iterations=1, max_steps=1)


def test_a_half_scored_file_is_not_finished_by_another_scorer(world, tmp_path, monkeypatch):  # noqa: F811
    from gpm_hf.scoring import RandomScorer

    original = RandomScorer._score

    def fragile(self, prompts, groups):
        if "Question 7?" in prompts:
            raise KeyboardInterrupt
        return original(self, prompts, groups)

    monkeypatch.setattr(RandomScorer, "_score", fragile)
    with pytest.raises(KeyboardInterrupt):
        run(world, tmp_path, iterations=1, scorer="random")
    with pytest.raises(ValueError, match=r"scorer was 'random', is .*remove .*scored.jsonl.parts and all"):
        run(world, tmp_path, iterations=1)


def test_table1_reads_its_rings_before_anything_is_trained(tmp_path, monkeypatch):
    from gpm_hf.evaluation.benchmarks.ring_accuracy import CyclicResult, PromptCounts
    from gpm_hf.recipes import table1

    trained = []

    def judged(*arguments):
        trained.append(arguments[2]["data"])
        return CyclicResult([PromptCounts(3, 3, 1, 1, 2)], None)

    monkeypatch.setattr(table1, "_systematic", judged)
    monkeypatch.setattr(table1, "_real", judged)
    rings = tmp_path / "rings.jsonl"
    base = tmp_path / "base" / "model.safetensors"
    base.parent.mkdir()
    base.write_bytes(b"weights")
    options = {"base": str(base.parent), "dimensions": [2], "seeds": [0], "rings": str(rings)}
    with pytest.raises(FileNotFoundError, match=r"rings\.jsonl"):
        table1.run_table1(tmp_path / "out", **options)
    rings.write_text(json.dumps({"prompt": "Q?", "responses": ["a", "b"], "ring": True}))
    with pytest.raises(ValueError, match="ring"):
        table1.run_table1(tmp_path / "out", **options)
    rings.write_text(json.dumps({"prompt": "Q?", "responses": ["a", "b", "c"], "ring": True}))
    with pytest.raises(ValueError, match=r"No row|COLUMN=VALUE"):
        table1.run_table1(tmp_path / "out", **options, keep="judge=me")
    for wrong, message in (({"dimensions": [2, 3]}, "not possible"), ({"seeds": []}, "no seeds")):
        with pytest.raises(ValueError, match=message):
            table1.run_table1(tmp_path / "out", **{**options, **wrong})
    assert not trained and not (tmp_path / "out").exists()
    table1.run_table1(tmp_path / "out", **options)
    assert len(trained) == 6
    # Other rings in a file of the same name are other rings: what is not theirs is kept.
    rings.write_text(json.dumps({"prompt": "Q?", "responses": ["a", "b", "d"], "ring": True}))
    table1.run_table1(tmp_path / "out", **options)
    assert trained[6:] == ["real", "real", "real, ranked"]
    # As is another backbone at the same path.
    base.write_bytes(b"others")
    table1.run_table1(tmp_path / "out", **options)
    assert trained[9:] == trained[:6]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == 15
