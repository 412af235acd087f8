"""A saved model as a Hub repository: all of it in one commit, or none of it."""

import fnmatch
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.utils import validate_repo_id
from transformers.utils import ADAPTER_CONFIG_NAME, CONFIG_NAME

from gpm_hf.files import report_text, scratch_folder
from gpm_hf.hub.cards import card_was_edited, pictures, write_card
from gpm_hf.hub.local_paths import is_local, strip_paths
from gpm_hf.hub.record import RECORD_FILE, RunRecord
from gpm_hf.hub.results import RESULTS_FOLDER, load_results
from gpm_hf.hub.sentence_transformers_export import DENSE_FOLDER, POOLING_FOLDER
from gpm_hf.identity import model_digest, weights_digest
from gpm_hf.modeling import check_one_model, is_weight_file, saved_as_one_model
from gpm_hf.scoring import SETTINGS_FILE

# What a repository of ours consists of. Not: checkpoints, optimizers, logs, pickles such as `training_args.bin`.
_PUBLISHED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.py",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.jinja",
    "README.md",
    RECORD_FILE,
    f"{RESULTS_FOLDER}/*.json",
    # Of an export for engines of embeddings.
    SETTINGS_FILE,
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    f"{POOLING_FOLDER}/config.json",
    f"{DENSE_FOLDER}/config.json",
    f"{DENSE_FOLDER}/model.safetensors",
)


@dataclass
class Publication:
    """
    What [`publish`] uploaded, or would.

    Attributes:
        repo: the repository's name.
        files: path in the repository to size in bytes.
        deleted: paths of an earlier upload that this one replaces by nothing.
        commit: the commit; `None` for a dry run.
        replaced: what stands in the files in place of local paths, in words.
    """

    repo: str
    files: dict[str, int]
    deleted: list[str]
    commit: CommitInfo | None
    replaced: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{size:>14,}  {path}" for path, size in sorted(self.files.items())]
        lines += [f"{'deleted':>14}  {path}" for path in self.deleted]
        lines += [f"{'replaced':>14}  {told}" for told in self.replaced]
        total = f"{len(self.files)} files, {sum(self.files.values()):,} bytes"
        told = f"would go to {self.repo}" if self.commit is None else f"in one commit: {self.commit.commit_url}"
        return "\n".join([*lines, f"{total} {told}"])


def publish(
    folder: str | Path,
    repo: str,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    merge: bool = False,
    base_model: str | None = None,
    license: str | None = None,
    message: str = "Upload model",
    dry_run: bool = False,
    with_results: bool = True,
    token: str | None = None,
) -> Publication:
    """
    Uploads a saved preference model, LoRA adapter or aligned policy in one commit: weights (safetensors),
    configuration, remote code, tokenizer with chat template, card and the pictures in it.

    Args:
        folder: what a trainer or `save_pretrained` wrote. It is not changed.
        repo: the Hub id, "user/name"; the repository is made where it is missing.
        private: whether a new repository is private.
        revision: a branch, made where it is missing. Default: "main".
        create_pr: open a pull request instead of committing.
        merge: upload an adapter merged into its base model, as a whole model.
        base_model: the Hub id to name as what the training started from, where that was a local copy.
        license: the base model's licence, for the card.
        message: of the commit.
        dry_run: upload nothing, ask the Hub nothing; say what would go.
        with_results: also upload the results of evaluations in `results/`.
        token: default: the one of `hf auth login`.

    Raises:
        FileNotFoundError: no saved model in the folder.
        ValueError: a name that is no "user/name"; a folder with the weights of two models; an adapter whose base model
            is a local folder, which nobody else has; a record or results of other weights; a card, edited by hand,
            that names a local path.
    """
    validate_repo_id(repo)
    if repo.count("/") != 1:
        raise ValueError(f"{repo!r} is no Hub id: give user/name.")
    folder = Path(folder)
    if not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(f"{folder} has no .safetensors file: it holds no saved model.")
    check_one_model(folder)
    results = load_results(folder) if with_results else None  # refuses those of other weights
    with scratch_folder("push") as scratch:
        staged, replaced = _stage(folder, scratch / "repo", merge, base_model, results, dry_run)
        if (staged / RECORD_FILE).is_file() and not card_was_edited(staged):
            # A merged model is another one than what was measured.
            write_card(staged, repo=repo, license=license, results=None if merge else results or [])
        else:
            _check_card(staged / "README.md", folder)
        files = sorted(path for path in staged.rglob("*") if path.is_file())
        names = {path.relative_to(staged).as_posix(): path for path in files}
        sizes = {name: path.stat().st_size for name, path in names.items()}
        if dry_run:
            return Publication(repo, sizes, [], None, replaced)
        api = HfApi(token=token)
        repo = api.create_repo(repo, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        # Weights or code of an earlier upload would be loaded beside these, or instead of them.
        present = api.list_repo_files(repo, revision=revision)
        deleted = [name for name in present if name not in names and (_is_published(name) or _is_leftover(name))]
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, path) for name, path in names.items()]
            + [CommitOperationDelete(name) for name in deleted],
            commit_message=message,
            revision=revision,
            create_pr=create_pr,
        )
        return Publication(repo, sizes, deleted, commit, replaced)


def _is_published(name: str) -> bool:
    # A pattern without a folder is for files of the top folder: `*` of fnmatch would also match a slash.
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatch(name, pattern) for pattern in _PUBLISHED)


def _is_leftover(name: str) -> bool:
    """What other uploads leave: weights as pickles, options, in which a token may be, pictures of earlier results."""
    return (
        is_weight_file(name)
        or name in ("training_args.bin", "optimizer.pt", "scheduler.pt")
        or fnmatch.fnmatch(name, "results/*.png")
    )


def _stage(
    folder: Path,
    staged: Path,
    merge: bool,
    base_model: str | None,
    results: list[dict[str, Any]] | None,
    dry_run: bool,
) -> tuple[Path, list[str]]:
    """The repository's files in a folder of their own, large ones as links; and what was replaced in them."""
    staged.mkdir()
    is_adapter = (folder / ADAPTER_CONFIG_NAME).is_file()
    record = RunRecord.load(folder) if (folder / RECORD_FILE).is_file() else None
    if merge and not is_adapter:
        raise ValueError(f"{folder} is no adapter: there is nothing to merge.")
    if base_model and record is None and not is_adapter:
        raise ValueError(f"{folder} has no {RECORD_FILE}, so there is no card that could name its base model.")
    shown = pictures(folder, record, results or []) if record is not None else {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith(f"{RESULTS_FOLDER}/") and results is None:
            continue
        if path.is_file() and (_is_published(name) or name in shown):
            target = staged / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".safetensors":
                target.symlink_to(path.resolve())
            else:
                shutil.copyfile(path, target)
    replaced = []
    if merge:
        _merge(folder, staged)
    elif is_adapter:
        replaced += _name_base_model(staged, base_model, record)
    if record is not None:
        if merge:
            record.settings = {name: value for name, value in record.settings.items() if name != "adapter of"}
            record.settings["adapter"] = "merged into the base model"
            record.weights_sha256 = weights_digest(staged) if record.weights_sha256 else ""
        if base_model and record.base_model != base_model:
            replaced.append(f"{RECORD_FILE}, base_model: {record.base_model or 'a local model'} -> {base_model}")
            record.base_model, record.base_revision = base_model, ""
        record.save(staged)
    replaced += _strip_paths(staged)
    if replaced and not dry_run:
        # What was measured on the folder's model was measured on this one. An adapter's base is asked for at the Hub.
        digest = model_digest(staged) if results else None
        for path in staged.glob(f"{RESULTS_FOLDER}/*.json"):
            result = json.loads(path.read_text(encoding="utf-8")) | {"model_sha256": digest}
            path.write_text(report_text(result, indent=1), encoding="utf-8")
    return staged, replaced


def _strip_paths(staged: Path) -> list[str]:
    """Replaces the local paths in the JSON files; returns what was replaced."""
    replaced = []
    for path in sorted(staged.rglob("*.json")):
        name = path.relative_to(staged).as_posix()
        if name.endswith(".index.json") or path.is_symlink():
            continue
        ours = name == RECORD_FILE or name.startswith(f"{RESULTS_FOLDER}/")
        value, told = strip_paths(json.loads(path.read_text(encoding="utf-8")), every_text=ours)
        if told:
            path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")
            replaced += [f"{name}, {one}" for one in told]
    return replaced


def _check_card(card: Path, folder: Path) -> None:
    """A card that a person wrote is uploaded as it is, but not with the place of the folder or of the home in it."""
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    for path in (folder.resolve(), Path.home()):
        if len(path.parts) > 2 and str(path) in text:
            raise ValueError(f"{folder / 'README.md'} names the local path {path}: edit it, then push again.")


def _name_base_model(staged: Path, base_model: str | None, record: RunRecord | None) -> list[str]:
    path = staged / ADAPTER_CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    earlier = config["base_model_name_or_path"]
    base = base_model or earlier
    # A relative path looks like a Hub id from elsewhere; the record knows what it was when the training ran.
    was_local = record is not None and not record.base_model
    if is_local(base) or (was_local and not base_model):
        raise ValueError(
            f"The adapter's base model is the local folder {base}, which nobody else has. Push that model first and "
            "name its Hub id as the base model, or push the merged model."
        )
    if base == earlier:
        return []
    config["base_model_name_or_path"] = base
    # A commit of the model that was named before.
    config["revision"] = None
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    return [f"{ADAPTER_CONFIG_NAME}, base_model_name_or_path: {earlier} -> {base}"]


def _merge(folder: Path, staged: Path) -> None:
    from gpm_hf.scoring import load_preference_model
    from gpm_hf.scoring.adapters import load_language_adapter

    (staged / "README.md").unlink(missing_ok=True)
    # Measured on the adapter: close to the merged model's, but not its own.
    shutil.rmtree(staged / RESULTS_FOLDER, ignore_errors=True)
    if (folder / CONFIG_NAME).is_file():
        model = load_preference_model(str(folder), merge=True)
    else:
        model = load_language_adapter(str(folder), dtype="auto").merge_and_unload()
    with saved_as_one_model(staged) as aside:
        model.save_pretrained(aside)
