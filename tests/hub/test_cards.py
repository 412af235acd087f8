"""Cards, records and results: what is stated is what was measured on these weights."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard

from gpm_hf.cli import main
from gpm_hf.hub.cards import write_card
from gpm_hf.hub.publishing import publish
from gpm_hf.hub.record import RunRecord
from gpm_hf.hub.results import dataset_of, load_results, save_result
from tests.conftest import CODE, build_gpm, build_tokenizer

RECORD = RunRecord(
    kind="preference_model",
    base_model="someone/base",
    base_revision="0123abcd",
    datasets=[{"name": "someone/data", "revision": "beef"}, {"name": "local.jsonl", "revision": ""}],
    settings={"embedding dimension": 4, "scale gate": "softmax"},
    hyperparameters={"learning_rate": 1e-3},
    metrics={"accuracy (training, step 2)": 0.75},
    hardware="1 x CPU",
    versions={"torch": "2.13.0"},
    tags=["gpm-hf"],
)


@pytest.fixture
def folder(tmp_path):
    build_gpm(embedding_dim=4).save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    RECORD.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def rings(tmp_path):
    ring = {
        "prompt": "How do I bake bread?",
        "responses": ["Mix flour and water.", "I do not know.", "Buy it."],
        "ring": True,
    }
    (tmp_path / "rings.jsonl").write_text(json.dumps(ring))
    return tmp_path / "rings.jsonl"


def evaluate(folder, rings, *more):
    output = folder / "results" / "cyclic.json"
    assert main(["eval", "cyclic", str(folder), "--dataset", str(rings), "--output", str(output), *more]) == 0
    return json.loads(output.read_text())


def test_a_record_comes_back_as_it_was(folder):
    assert RunRecord.load(folder) == RECORD


def test_the_card_tells_the_record_and_no_more(folder):
    card = ModelCard.load(write_card(folder, repo="me/model", license="apache-2.0"))
    assert card.data.license == "apache-2.0" and card.data.base_model == "someone/base"
    assert card.data.datasets == ["someone/data"] and card.data.eval_results is None
    for text in (
        "`someone/base`, revision `0123abcd`",
        "`someone/data`, revision `beef`, `local.jsonl`.",
        "| learning_rate | 0.001 |",
        "| accuracy (training, step 2) | 0.75 |",
        'AutoModel.from_pretrained("me/model", trust_remote_code=True)',
        "\ngpm-hf export sentence-transformers me/model served\n",
        "`clean`: chats become tokens",
        "Hardware: 1 x CPU.",
    ):
        assert text in card.text, text
    assert "## Evaluation" not in card.text and "![" not in card.text


def test_evaluations_reach_the_card_and_its_metadata(folder, rings):
    found = evaluate(folder, rings, "--picture", str(folder / "results" / "cycles.png"))
    assert main(["card", str(folder), "--repo", "me/model"]) == 0
    card = ModelCard.load(folder / "README.md")
    metrics = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert metrics == {
        "pair accuracy": pytest.approx(found["result"]["pair_accuracy"], abs=1e-6),
        "cycle accuracy": found["result"]["cycle_accuracy"],
    }
    # A file of one's own is no data set of the Hub, and has no split.
    assert {(one.dataset_type, one.dataset_name, one.dataset_split) for one in card.data.eval_results} == {
        ("unknown", "rings.jsonl", None)
    }
    assert "`cyclic` on `rings.jsonl, train`" in card.text
    assert "](results/cycles.png)" in card.text.partition("## Evaluation")[2]
    files = publish(folder, "me/model", dry_run=True).files
    assert {"results/cycles.png", "results/cyclic.json", "README.md", "gpm_run.json"} <= set(files)


def test_leaderboards_read_id_split_and_interval(folder):
    dataset = dataset_of("someone/rings", "no_honesty", "test_prompts")
    result = {"pair_accuracy": 0.875, "pair_accuracy_interval": [0.75, 1.0], "cycle_accuracy": 0.5}
    save_result(
        folder / "results" / "cyclic.json", folder, "cyclic", "someone/rings, test_prompts", result, None, dataset
    )
    text = write_card(folder).read_text()
    card = ModelCard(text)
    first, second = card.data.eval_results
    assert (first.dataset_type, first.dataset_config, first.dataset_split) == (
        "someone/rings",
        "no_honesty",
        "test_prompts",
    )
    assert first.metric_args == {"interval_95": [0.75, 1.0]} and second.metric_args is None
    assert card.data.pipeline_tag == "text-ranking" and card.data.widget
    assert "https://arxiv.org/abs/2410.02197" in text


def test_results_under_another_configuration_are_refused(folder, rings):
    """The same weights with another tau give other probabilities."""
    evaluate(folder, rings)
    config = json.loads((folder / "config.json").read_text())
    assert len(load_results(folder)) == 1
    (folder / "config.json").write_text(json.dumps(config | {"tau": 2 * config["tau"]}))
    with pytest.raises(ValueError, match="its weights, configuration, tokenizer"):
        load_results(folder)


def test_results_of_other_weights_are_refused(folder, rings):
    evaluate(folder, rings)
    build_gpm(embedding_dim=4, seed=5).save_pretrained(folder)
    with pytest.raises(ValueError, match="not measured on the model"):
        load_results(folder)
    with pytest.raises(ValueError, match="evaluate again, or remove"):
        write_card(folder)
    write_card(folder, results=[])
    (folder / "results" / "other.json").write_text("[]")
    (folder / "results" / "cyclic.json").unlink()
    with pytest.raises(ValueError, match=r"no result of one model.*Keep it in another folder"):
        load_results(folder)


def test_no_card_for_two_models(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"weights of 2 models \(model\.safetensors; adapter_config\.json\)"):
        write_card(folder)
    with pytest.raises(ValueError, match="weights of 2 models"):
        publish(folder, "me/model", dry_run=True)


def test_only_what_belongs_to_a_model_is_uploaded(folder):
    for name in ("training_args.bin", "optimizer.pt", "notes.txt", "checkpoint-2/model.safetensors", "runs/events"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / ".env").write_text("HF_TOKEN=secret")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    publication = publish(folder, "me/model", dry_run=True)
    weights = {"config.json", "model.safetensors", "gpm_run.json"}
    tokenizer = {"chat_template.jinja", "tokenizer.json", "tokenizer_config.json"}
    assert set(publication.files) == {"README.md"} | weights | tokenizer | CODE
    assert publication.files["model.safetensors"] == (folder / "model.safetensors").stat().st_size
    assert "would go to me/model" in str(publication)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_errors(folder, tmp_path, capsys):
    with pytest.raises(FileNotFoundError, match="holds no saved model"):
        publish(tmp_path, "me/model", dry_run=True)
    with pytest.raises(ValueError, match="is no adapter"):
        publish(folder, "me/model", merge=True, dry_run=True)
    (folder / "gpm_run.json").unlink()
    assert main(["card", str(folder)]) == 1
    assert "has no gpm_run.json" in capsys.readouterr().err
    assert "gpm_run.json" not in publish(folder, "me/model", dry_run=True).files


def test_an_adapter_of_a_local_folder_is_not_pushed_as_one(tmp_path):
    from peft import LoraConfig, get_peft_model

    base = build_gpm(embedding_dim=4)
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    adapter = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    shutil.copy(tmp_path / "base" / "config.json", tmp_path / "adapter")
    with pytest.raises(ValueError, match="which nobody else has"):
        publish(tmp_path / "adapter", "me/adapter", dry_run=True)
    assert (
        "adapter_model.safetensors"
        in publish(tmp_path / "adapter", "me/adapter", base_model="me/base", dry_run=True).files
    )
    merged = publish(tmp_path / "adapter", "me/merged", merge=True, dry_run=True).files
    assert "model.safetensors" in merged and "adapter_config.json" not in merged


def test_an_edited_card_is_uploaded_as_it_is_and_a_licence_is_remembered(folder):
    write_card(folder, license="mit")
    assert RunRecord.load(folder).license == "mit"
    assert ModelCard.load(write_card(folder)).data.license == "mit"
    size = publish(folder, "me/model", dry_run=True).files["README.md"]
    with open(folder / "README.md", "a") as file:
        file.write("\nA line of our own.\n" + "x" * 5000)
    assert publish(folder, "me/model", dry_run=True).files["README.md"] > size + 5000


@pytest.mark.parametrize("repo", ["model", "a/b/c", "me/mo del"])
def test_names_that_the_hub_would_refuse(folder, repo):
    with pytest.raises(ValueError, match=r"Hub id|epo id"):
        publish(folder, repo, dry_run=True)


def test_stale_results_are_refused_without_a_record_too(folder, rings):
    evaluate(folder, rings)
    (folder / "gpm_run.json").unlink()
    build_gpm(embedding_dim=4, seed=5).save_pretrained(folder)
    with pytest.raises(ValueError, match="not measured on the model"):
        publish(folder, "me/model", dry_run=True)
    assert not any("results" in name for name in publish(folder, "me/model", dry_run=True, with_results=False).files)


def test_the_card_states_type_rounding_and_date(folder):
    write_card(folder)
    card = " ".join((folder / "README.md").read_text().split())
    assert "Stored in float32, in which log-odds move with what else is in the batch by up to 0.001 (measured" in card
    assert "it is `2024-07-26` on every day" in card
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16", "template_date": "2025-03-07"}))
    write_card(folder)
    card = " ".join((folder / "README.md").read_text().split())
    assert "Stored in bfloat16, in which log-odds move with what else is in the batch by up to 1.5 (measured" in card
    assert '`dtype="float32"` tells apart' in card and "it is `2025-03-07` on every day" in card
