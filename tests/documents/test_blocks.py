"""Every code block of the README and of docs/ does what it says, with small local stand-ins for what is on the Hub."""

import json
import re
import shutil

import pytest
import yaml

from tests.conftest import build_tokenizer, save_backbone
from tests.documents.blocks import PAGES, ROOT, Block, blocks_of
from tests.documents.shell import commands_of

# What a training in Python is given here, beside the options of the document.
SHORT_ARGUMENTS = 'use_cpu=True, bf16=False, max_steps=2, report_to="none", save_strategy="no"'
BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """Names of the Hub that the documents use, and the folders that stand for them."""
    folder = tmp_path_factory.mktemp("hub")
    data = ROOT / "examples" / "data"

    def dataset(name, source, **splits):
        (folder / name).mkdir()
        for split, rows in {"train": 24, "test": 8, **splits}.items():
            lines = (data / source).read_text().splitlines(keepends=True)[:rows]
            (folder / name / f"{split}.jsonl").write_text("".join(lines))
        return str(folder / name)

    found = {
        BASE: save_backbone(folder / "backbone", max_position_embeddings=1024),
        "trl-lib/ultrafeedback_binarized": dataset("ultrafeedback_binarized", "pairs.jsonl"),
        "trl-lib/ultrafeedback-prompt": dataset("ultrafeedback-prompt", "prompts.jsonl"),
        "openbmb/UltraFeedback": dataset("ultrafeedback", "ratings.jsonl"),
        "my-name/my-gpm": str(folder / "gpm"),
        "some/reward-model": str(folder / "reward-model"),
    }
    train_preference_model(found[BASE], folder / "gpm")
    save_reward_model(folder / "reward-model")
    return found


def train_preference_model(base, folder):
    """One that has learned something, so that it can be calibrated."""
    from datasets import load_dataset

    from gpm_hf import GPMRewardConfig, GPMRewardTrainer

    args = GPMRewardConfig(
        str(folder),
        embedding_dim=6,
        train_heads_only=True,
        max_steps=60,
        learning_rate=1e-2,
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
    )
    rows = load_dataset("json", data_files=str(ROOT / "examples" / "data" / "pairs.jsonl"), split="train")
    trainer = GPMRewardTrainer(base, args, train_dataset=rows)
    trainer.train()
    trainer.save_model()


def save_reward_model(folder):
    import torch
    from transformers import AutoModelForSequenceClassification

    from tests.conftest import backbone_config

    torch.manual_seed(1)
    config = backbone_config(num_labels=1, max_position_embeddings=1024)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)


@pytest.fixture
def clone(hub, tmp_path, monkeypatch):
    """A clone in which the demonstration has run, as every page takes it, and the current folder."""
    for name in ("examples", "trainers", "benchmarks", "constraints.txt", "pyproject.toml", "Makefile"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("runs/demo/gpm", "runs/gpm"):
        shutil.copytree(hub["my-name/my-gpm"], tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def run_block(block: Block, hub: dict[str, str], namespace: dict) -> None:
    text = re.sub(r'(Config\("runs/[\w/-]+")', rf"\1, {SHORT_ARGUMENTS}", block.text)
    if block.how != "options":
        for name, local in hub.items():
            text = text.replace(name, local)
    if block.language == "python":
        code = compile(text, block.place, "exec")
        if block.how != "options":
            exec(code, namespace)
    elif block.language == "bash":
        for command in commands_of(text, block.place):
            if block.how == "options":
                command.check()
            else:
                command.run()
    elif block.language == "yaml":
        assert yaml.safe_load(text)
    else:
        lines = text.splitlines() if block.language == "jsonl" else [text]
        assert [json.loads(line) for line in lines]


def test_a_way_of_testing_that_there_is_not_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- test: maybe -->\n```bash\nls\n```\n")
    with pytest.raises(ValueError, match="not as 'maybe'"):
        blocks_of(page)
    page.write_text("```\nls\n```\n")
    with pytest.raises(ValueError, match="needs a language"):
        blocks_of(page)


def test_wrong_options_are_found():
    for line in (
        "gpm-hf rank runs/gpm --no-such-option",
        "accelerate launch --no-such-option 3 trainers/gpo.py --output_dir x",
        "accelerate launch trainers/gpo.py --output_dir x --no_such_option 3",
        "gpm-hf train reward --output_dir x --embedding_dim six",
        "make no-such-target",
        "pip install -e '.[no-such-extra]'",
        "no-such-program",
    ):
        (command,) = commands_of(line, "here")
        with pytest.raises((AssertionError, SystemExit)):
            command.check()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of(page, hub, clone):
    blocks, namespace = blocks_of(page), {"__name__": "__main__"}
    for block in blocks:
        if block.how != "slow":
            run_block(block, hub, namespace)


SLOW_PAGES = [page for page in PAGES if any(block.how == "slow" for block in blocks_of(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW_PAGES, ids=lambda page: page.stem)
def test_slow_blocks_of(page, hub, clone):
    namespace = {"__name__": "__main__"}
    for block in blocks_of(page):
        run_block(block, hub, namespace)
