"""Exported folders give, in an engine of embeddings, the log-odds of the model."""

import json

import pytest
import torch

from gpm_hf.cli import main
from gpm_hf.hub.publishing import publish
from gpm_hf.hub.sentence_transformers_export import export_sentence_transformers, load_export
from gpm_hf.modeling import GPMForPreference, encode_group
from gpm_hf.scoring import ServedHeads
from tests.conftest import build_tokenizer
from tests.serving.groups import KINDS, assert_agree, groups_of_eight, save_model


def heads_by_sentence_transformers(folder, dtype=None):
    """A function from rows of token ids to what sentence-transformers makes of them."""
    sentence_transformers = pytest.importorskip("sentence_transformers")
    options = {"model_kwargs": {"dtype": dtype}} if dtype else {}
    engine = sentence_transformers.SentenceTransformer(str(folder), device="cpu", **options)

    def heads(rows):
        length = max(map(len, rows))
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
        with torch.no_grad():
            return engine({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]

    return heads


def by_hand(settings, outputs, prompt_output):
    """The log-odds, spelled out from the stacked numbers alone."""
    dim, blocks = settings["embedding_dim"], settings["embedding_dim"] // 2 if settings["scale_gate"] else 0
    outputs, prompt_output = outputs.double(), prompt_output.double()
    vectors = outputs[:, :dim]
    if settings["normalize_embeddings"]:
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
    if dim == 1:
        raw = vectors - vectors.T
    else:
        scales = prompt_output[dim : dim + blocks].softmax(-1) if blocks else torch.ones(dim // 2, dtype=torch.float64)
        raw = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
        for block, scale in enumerate(scales):
            first, second = vectors[:, 2 * block], vectors[:, 2 * block + 1]
            raw += scale * (first[:, None] * second[None] - second[:, None] * first[None])
    if settings["reward_head"]:
        rewards = outputs[:, dim + blocks]
        raw += rewards[:, None] - rewards[None]
    return raw / settings["tau"]


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("backbone", "kind"),
    [
        ("llama", "gate"),
        ("qwen3", "reward"),
        *(slow("llama", kind) for kind in KINDS if kind != "gate"),
        *(slow("gemma3_text", kind) for kind in ("gate", "reward")),
    ],
)
def test_log_odds_are_the_models(backbone, kind, tmp_path):
    model, tokenizer = save_model(tmp_path / "gpm", backbone, **KINDS[kind]), build_tokenizer()
    export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "gpm_serving.json").read_text())
    heads = heads_by_sentence_transformers(tmp_path / "out")
    prompts, groups = groups_of_eight()
    found = []
    for prompt, responses in zip(prompts, groups):
        group = encode_group(tokenizer, prompt, responses)
        outputs = heads([*group.sequences, group.prompt_ids])
        found.append(by_hand(settings, outputs[:-1], outputs[-1]).float())
    assert_agree(found, model.preference_scores(tokenizer, prompts, groups))


@pytest.mark.parametrize("kind", [slow("gate"), slow("no-gate"), "reward", slow("bradley-terry")])
def test_the_settings_do_what_the_formula_does(kind, tmp_path):
    save_model(tmp_path / "gpm", **KINDS[kind])
    settings = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    torch.manual_seed(0)
    outputs = torch.randn(5, settings.output_size)
    expected = by_hand(vars(settings), outputs[:4], outputs[4])
    torch.testing.assert_close(settings.scores(outputs[:4], outputs[4]).double(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [slow("gate"), slow("no-gate"), "reward", slow("bradley-terry")])
def test_loaded_again_it_is_the_same_model(kind, tmp_path):
    model = save_model(tmp_path / "gpm", **KINDS[kind])
    written = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    again, settings = load_export(tmp_path / "out")
    assert settings == written
    prompts, groups = groups_of_eight(2)
    for one, other in zip(
        again.preference_scores(build_tokenizer(), prompts, groups),
        model.preference_scores(build_tokenizer(), prompts, groups),
    ):
        assert torch.equal(one, other)


def test_bfloat16_is_stated(tmp_path):
    """The heads stay float32; log-odds move by what bfloat16 rounds, and the tolerance is that of bfloat16."""
    from safetensors.torch import load_file

    model = save_model(tmp_path / "gpm", **KINDS["gate"])
    settings = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out", dtype="bfloat16")
    assert settings.dtype == "bfloat16" and settings.tolerance == pytest.approx(1.5)
    assert load_file(tmp_path / "out" / "2_Dense" / "model.safetensors")["linear.weight"].dtype == torch.float32
    assert {one.dtype for one in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    heads = heads_by_sentence_transformers(tmp_path / "out")
    group = encode_group(build_tokenizer(), settings.reference_prompt, settings.reference_responses)
    outputs = heads([*group.sequences, group.prompt_ids])
    exact = model.preference_scores(build_tokenizer(), settings.reference_prompt, settings.reference_responses)
    assert 0 < float((settings.scores(outputs[:-1], outputs[-1]) - exact).abs().max()) < 1.5


@pytest.mark.parametrize("kind", ["gate", slow("no-gate"), slow("reward"), slow("bradley-terry")])
def test_another_type_or_a_norm_shows_in_the_reference_group(kind, tmp_path):
    save_model(tmp_path / "gpm", **KINDS[kind])
    settings = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    rows = [*settings.reference_ids, settings.reference_prompt_ids]
    outputs = heads_by_sentence_transformers(tmp_path / "out")(rows)
    settings.check_outputs(outputs[:-1], outputs[-1], "here")
    half = heads_by_sentence_transformers(tmp_path / "out", torch.float16)(rows).float()
    unit = torch.nn.functional.normalize(outputs, dim=-1)
    wrong = [half] if kind == "no-gate" else [half, unit]  # without gate and reward a norm changes nothing
    if settings.scale_gate:
        # The gate reads the prompt without its generation prompt, `<|im_start|>assistant\n`.
        short = settings.reference_prompt_ids[:-3]
        read_short = heads_by_sentence_transformers(tmp_path / "out")([*settings.reference_ids, short])
        wrong.append(read_short)
    for one in wrong:
        with pytest.raises(ValueError, match="gives other log-odds for the reference group"):
            settings.check_outputs(one[:-1], one[-1], "here")
    with pytest.raises(ValueError, match="numbers for a sequence"):
        settings.check_outputs(outputs[:-1, 1:], outputs[-1, 1:], "here")


def test_an_adapter_is_merged(backbone_folder, tmp_path):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = GPMForPreference.from_backbone(backbone_folder, embedding_dim=4)
    modules = ["embedding_head", "gate_head"]
    config = LoraConfig(
        task_type="FEATURE_EXTRACTION", target_modules=["q_proj"], modules_to_save=modules, init_lora_weights=False
    )
    model = get_peft_model(model, config).eval()
    model.save_pretrained(tmp_path / "adapter")
    model.get_base_model().save_config_and_code(tmp_path / "adapter")
    build_tokenizer().save_pretrained(tmp_path / "adapter")
    export_sentence_transformers(str(tmp_path / "adapter"), tmp_path / "out")
    again, _ = load_export(tmp_path / "out")
    prompts, groups = groups_of_eight(2)
    assert_agree(
        again.preference_scores(build_tokenizer(), prompts, groups),
        model.preference_scores(build_tokenizer(), prompts, groups),
    )


def test_what_cannot_be_exported(backbone_folder, tmp_path, capsys):
    assert main(["export", "sentence-transformers", backbone_folder, str(tmp_path / "out")]) == 1
    assert "is a llama language model, not a preference model" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    save_model(tmp_path / "gpm", embedding_dim=4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(FileExistsError):
        export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_the_command_and_the_push(tmp_path, capsys):
    save_model(tmp_path / "gpm", embedding_dim=4)
    out = tmp_path / "out"
    assert main(["export", "sentence-transformers", str(tmp_path / "gpm"), str(out)]) == 0
    assert "llama in float32, 6 numbers" in capsys.readouterr().out
    card = (out / "README.md").read_text()
    assert "4 of the embedding head, 2 of the scale" in card and str(tmp_path) not in card
    files = publish(str(out), "user/served", dry_run=True).files
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == set(files)
    assert not list(out.rglob("*.py"))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"version": 2}, "no settings of a served preference model of version 1"),
        ({"tau": "0.1"}, "tau"),
        ({"more": 1}, "more"),
        ({"embedding_dim": True}, "embedding_dim"),
    ],
)
def test_settings_of_another_kind_are_refused(change, sentence, tmp_path):
    save_model(tmp_path / "gpm", embedding_dim=4)
    settings = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    with pytest.raises(ValueError, match=sentence):
        ServedHeads.from_json(json.dumps({**json.loads(settings.to_json()), **change}), "here")
    with pytest.raises(ValueError, match="is no JSON"):
        ServedHeads.from_json("{", "here")
    with pytest.raises(FileNotFoundError, match="gpm-hf export sentence-transformers"):
        load_export(tmp_path / "gpm")


def test_the_tokenizer_is_the_exports(tmp_path):
    save_model(tmp_path / "gpm", embedding_dim=4)
    settings = export_sentence_transformers(str(tmp_path / "gpm"), tmp_path / "out")
    settings.check_tokenizer(build_tokenizer(), "here")
    other = build_tokenizer()
    other.chat_template = other.chat_template.replace("<|im_end|>", "")
    with pytest.raises(ValueError, match=r"chat template .* is not the one"):
        settings.check_tokenizer(other, "here")
