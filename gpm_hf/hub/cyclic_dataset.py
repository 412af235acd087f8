"""A CyclicPreference data set as a repository: Parquet files and a card that says what is in them."""

import statistics
from importlib.metadata import version
from pathlib import Path

from datasets import DatasetDict
from huggingface_hub import CommitInfo, DatasetCard, DatasetCardData, HfApi

from gpm_hf.data.cyclic import SPLITS, CyclicDatasets
from gpm_hf.files import folder_written_whole
from gpm_hf.hub.escaping import code, literal, plain, with_code
from gpm_hf.tables import markdown_table
from gpm_hf.templates import card_template


def save_cyclic_dataset(
    datasets: CyclicDatasets,
    folder: str | Path,
    source: str,
    repo: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
) -> Path:
    """
    Writes a data set as the Hub stores it, so that `load_dataset(folder, configuration)` reads it.

    Args:
        datasets: what [`build_cyclic_dataset`] returned.
        folder: the folder to write, which must not hold anything yet. It is written aside and renamed.
        source: where the rated responses come from, for the card; best with a revision.
        repo: the name to load it by, for the card. Default: the folder's name.
        license: the licence of the source, as the Hub calls it.
        overwrite: whether a folder that holds something is replaced.

    Returns:
        The folder.

    Raises:
        FileExistsError: the folder holds something, and is not to be replaced.
    """
    folder = Path(folder)
    with folder_written_whole(folder, overwrite) as aside:
        files: dict[str, dict[str, str]] = {}
        for name in datasets:
            for configuration, splits in ((name, datasets[name]), (f"{name}_groups", datasets.groups(name))):
                written = _write_splits(splits, aside, configuration)
                if written:
                    files[configuration] = written
        _card(datasets, files, folder.name, source, repo or folder.name, license).save(aside / "README.md")
    return folder


def push_cyclic_dataset(folder: str | Path, repo: str, private: bool | None = None) -> CommitInfo:
    """
    Uploads a folder of [`save_cyclic_dataset`] to the Hub in one commit; the repository is made where it is missing.

    Args:
        folder: the folder.
        repo: the repository's name, "user/name".
        private: whether a new repository is private.
    """
    api = HfApi()
    api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
    return api.upload_folder(
        repo_id=repo,
        repo_type="dataset",
        folder_path=folder,
        commit_message="Upload CyclicPreference data",
        # A file of an earlier upload that this one lacks would still be loaded.
        delete_patterns=["*.parquet", "*/*.parquet"],
    )


def _write_splits(splits: DatasetDict, folder: Path, configuration: str) -> dict[str, str]:
    """Parquet files by split, relative to the folder. An empty split has no file: loading it would fail."""
    written = {}
    for split, rows in splits.items():
        if len(rows):
            file = folder / configuration / f"{split}.parquet"
            file.parent.mkdir(exist_ok=True)
            rows.to_parquet(file)
            written[split] = file.relative_to(folder).as_posix()
    return written


def _card(datasets, files, name, source, repo, license) -> DatasetCard:
    report = datasets.report
    data = DatasetCardData(
        license=license,
        task_categories=["text-generation", "reinforcement-learning"],
        tags=["preference", "cyclic-preference", "intransitive-preference", "rlhf", "gpm-hf", "trl"],
        configs=[
            {
                "config_name": configuration,
                "data_files": [{"split": split, "path": path} for split, path in splits.items()],
            }
            for configuration, splits in files.items()
        ],
    )
    header = ["configuration", "ring", "responses", "cycles", "prompts", "rings found"]
    header += [f"pairs in `{split}`" for split in SPLITS]
    counted, gaps = [], []
    for configuration, counts in report.configurations.items():
        ring = " > ".join(map(plain, [*counts.aspects, counts.aspects[0]]))
        numbers = [len(counts.aspects), counts.cycles, counts.prompts, counts.cycles_found]
        counted.append([code(configuration), ring, *numbers, *(counts.pairs[split] for split in SPLITS)])
        edges = sorted(counts.gaps.elements())
        spread = [f"{value:g}" for value in (edges[0], statistics.median(edges), edges[-1])] if edges else ["-"] * 3
        gaps.append([code(configuration), *spread])
    first = next(iter(files))
    return DatasetCard.from_template(
        data,
        template_path=card_template("cyclic_dataset.md"),
        name=plain(name),
        repo=literal(repo),
        first_configuration=literal(first),
        first_groups=literal(f"{first}_groups"),
        configurations=markdown_table(header, counted),
        gaps=markdown_table(["configuration", "smallest gap", "median gap", "largest gap"], gaps),
        min_gap=report.min_gap,
        seed=report.seed,
        test_share=report.test_share,
        aspects=report.configurations["all"].aspects,
        source=with_code(source),
        rows=report.rows,
        problems=markdown_table(
            ["reason", "count"], [(with_code(reason), count) for reason, count in sorted(report.problems.items())]
        )
        if report.problems
        else "",
        version=version("gpm-hf"),
    )
