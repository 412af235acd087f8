"""What goes to the Hub says nothing of where things lie on this machine."""

import json
import re
from pathlib import Path

import pytest
from datasets import Dataset
from huggingface_hub import ModelCard
from peft import LoraConfig

from gpm_hf import GPMRewardConfig, GPMRewardTrainer, load_preference_model
from gpm_hf.cli import main
from gpm_hf.hub import publishing
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.local_paths import is_local, strip_paths, without_paths
from gpm_hf.hub.publishing import publish
from tests.conftest import build_gpm, build_tokenizer, save_backbone
from tests.training.test_reward_trainer import ring_rows


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpm:runs/model (files 0123)", "gpm:model (files 0123)"),
        ("`/home/me/runs/model`, `a/b`", "`model`, `a/b`"),
        ("/gone/away/model", "model"),
        ("https://huggingface.co/a/b and s3://bucket/a/b", "https://huggingface.co/a/b and s3://bucket/a/b"),
        ("user/name", "user/name"),
        ("and/or, 1/2, /think", "and/or, 1/2, /think"),
        ("~/runs/model", "model"),
        ("gpm:.", "gpm:."),
    ],
)
def test_without_paths(text, expected, tmp_path, monkeypatch):
    (tmp_path / "runs" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert without_paths(text) == expected


def test_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    assert all(map(is_local, ["base", "./base", str(tmp_path), "/gone/away/base", "../base", r"C:\runs\base"]))
    assert not any(map(is_local, ["", "user/base", "gpt2", "//huggingface.co/a/b"]))


def test_strip_paths_follows_keys_and_leaves_vocabularies():
    value = {
        "_name_or_path": "/home/me/base",
        "text_config": {"_name_or_path": "user/base"},
        "tokenizer_file": "/home/me/base/tokenizer.json",
        "added_tokens": [{"content": "/usr/bin/env"}],
        "layers": 2,
    }
    stripped, told = strip_paths(value)
    assert stripped == value | {"_name_or_path": "base", "tokenizer_file": "tokenizer.json"}
    assert told == [
        "_name_or_path: /home/me/base -> base",
        "tokenizer_file: /home/me/base/tokenizer.json -> tokenizer.json",
    ]
    assert strip_paths({"scorer": "gpm:/home/me/model (files 1)"}, every_text=True)[0] == {
        "scorer": "gpm:model (files 1)"
    }


def train(base, folder, **options):
    args = GPMRewardConfig(
        str(folder),
        embedding_dim=4,
        use_cpu=True,
        bf16=False,
        report_to="none",
        disable_tqdm=True,
        max_steps=1,
        save_strategy="no",
    )
    trainer = GPMRewardTrainer(str(base), args, train_dataset=Dataset.from_list(ring_rows(2)), **options)
    trainer.train()
    trainer.save_model()
    return trainer


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_backbone(tmp_path_factory.mktemp("home") / "base")


@pytest.fixture(scope="module", params=["whole", "lora"])
def trained(request, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "model"
    lora = LoraConfig(r=2, target_modules=["q_proj"]) if request.param == "lora" else None
    train(base, folder, peft_config=lora)
    return folder


@pytest.fixture
def staged(monkeypatch):
    """The texts of what would have been uploaded."""
    found = {}

    def keep(staged, *arguments, **options):
        path = original(staged, *arguments, **options)
        for file in staged.rglob("*"):
            if file.is_file() and not file.is_symlink():
                found[file.relative_to(staged).as_posix()] = file.read_text()
        return path

    original = publishing.write_card
    monkeypatch.setattr(publishing, "write_card", keep)
    return found


def test_nothing_that_is_pushed_names_a_local_path(trained, base, staged, capsys):
    """The trained folder says where its base is; what is pushed says the name that was given for it."""
    (trained / "results").mkdir(exist_ok=True)
    rings = {
        "prompt": "How do I bake bread?",
        "responses": ["Mix flour and water.", "I do not know.", "Buy it."],
        "ring": True,
    }
    (trained.parent / "rings.jsonl").write_text(json.dumps(rings))
    arguments = ["eval", "cyclic", str(trained), "--dataset", str(trained.parent / "rings.jsonl")]
    assert main([*arguments, "--output", str(trained / "results" / "cyclic.json")]) == 0
    name = json.loads((trained / "config.json").read_text()) | {"_name_or_path": str(base)}
    publication = publish(trained, "me/model", base_model="me/base", dry_run=True)
    assert {"config.json", "README.md", "gpm_run.json", "results/cyclic.json"} <= staged.keys()
    for file, text in staged.items():
        assert str(Path(base).parent) not in text and str(trained.parent) not in text, file
    card = ModelCard(staged["README.md"])
    assert card.data.base_model == "me/base" and len(card.data.eval_results) == 2
    is_adapter = (trained / "adapter_config.json").exists()
    expected = ["gpm_run.json, base_model: a local model -> me/base"]
    if is_adapter:
        expected.insert(0, f"adapter_config.json, base_model_name_or_path: {base} -> me/base")
        assert 'from_backbone("me/base", config=config, heads_follow=True)' in card.text
    assert publication.replaced == expected
    assert all(f"replaced  {told}" in str(publication) for told in expected)
    assert main(["push", str(trained), "me/model", "--base-model", "me/base", "--dry-run"]) == 0
    assert f"replaced  {expected[-1]}" in capsys.readouterr().out
    assert name["model_type"] == "gpm"


def test_paths_in_configurations_are_replaced_and_told(base, tmp_path):
    folder = tmp_path / "model"
    build_gpm(embedding_dim=4).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    for file, key in (("config.json", "_name_or_path"), ("tokenizer_config.json", "name_or_path")):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {key: base}))
    before = (folder / "config.json").read_bytes()
    replaced = publish(folder, "me/model", dry_run=True).replaced
    assert replaced == [
        f"config.json, _name_or_path: {base} -> base",
        f"tokenizer_config.json, name_or_path: {base} -> base",
    ]
    assert (folder / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"no gpm_run\.json, so there is no card that could name its base"):
        publish(folder, "me/model", base_model="me/base", dry_run=True)


def test_an_edited_card_with_a_path_is_refused(trained, tmp_path):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(trained, folder)
    write_card(folder, results=[])
    with open(folder / "README.md", "a") as file:
        file.write(f"\nLies in {folder}.\n")
    with pytest.raises(ValueError, match="names the local path"):
        publish(folder, "me/model", base_model="me/base", dry_run=True, with_results=False)


def test_the_card_of_a_local_lora_runs_with_the_base_put_in(base, tmp_path):
    trainer = train(base, tmp_path / "model", peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    card = (tmp_path / "model" / "README.md").read_text()
    assert "put its folder in the place of `BASE_MODEL`" in card and 'from_backbone("")' not in card
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    block = block.replace("BASE_MODEL", base).replace('"model"', f'"{tmp_path / "model"}"')
    names = {}
    exec(compile(block, "card", "exec"), names)
    model = load_preference_model(str(tmp_path / "model"))
    expected = model.preference_scores(trainer.processing_class, names["prompt"], names["responses"])
    assert abs(names["scores"] - expected).max() < 1e-5
    assert "transformers (5.23 or newer)" in card
