"""A CyclicPreference data set as a repository, on disk and through a Hub."""

import re

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard

from gpm_hf.data.cyclic import PAPER_ASPECTS, build_cyclic_dataset
from gpm_hf.hub.cyclic_dataset import save_cyclic_dataset
from tests.data.test_cyclic import RING_OF_THREE, many_rows, row
from tests.loopback_hub import run_python


@pytest.fixture(scope="module")
def built():
    return build_cyclic_dataset(many_rows(60))


@pytest.fixture(scope="module")
def folder(built, tmp_path_factory):
    return save_cyclic_dataset(built, tmp_path_factory.mktemp("data") / "cyclic", "made up", license="mit")


def test_the_folder_loads_as_it_was_built(built, folder, tmp_path):
    for name in built:
        for configuration, expected in ((name, built[name]), (f"{name}_groups", built.groups(name))):
            loaded = load_dataset(str(folder), configuration, cache_dir=str(tmp_path))
            assert {split: list(rows) for split, rows in loaded.items()} == {
                split: list(rows) for split, rows in expected.items()
            }


def test_the_card_states_the_counts(built, folder):
    card = DatasetCard.load(folder / "README.md")
    assert card.data.license == "mit"
    names = [config["config_name"] for config in card.data.configs]
    assert names == [f"{name}{kind}" for name in built for kind in ("", "_groups")]
    for name, splits in built.items():
        counts = built.report.configurations[name]
        line = next(line for line in card.text.splitlines() if line.startswith(f"| `{name}` | "))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[2:] == [
            str(value)
            for value in (
                len(counts.aspects),
                counts.cycles,
                counts.prompts,
                counts.cycles_found,
                *map(len, splits.values()),
            )
        ]
    assert "60 rows were read" in card.text and "{" not in card.text.split("```bibtex")[0].replace("```", "")


def test_what_is_empty_is_said_and_not_written(tmp_path):
    """Rings of three responses leave no ring of four."""
    rows = [row("q", *[(*ratings, "1") for ratings in RING_OF_THREE])]
    built = build_cyclic_dataset(rows)
    folder = save_cyclic_dataset(built, tmp_path / "cyclic", "made up")
    text = (folder / "README.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "no_helpfulness", "no_helpfulness_groups"]
    assert f"| `all` | {' > '.join([*PAPER_ASPECTS, PAPER_ASPECTS[0]])} | 4 | 0 | 0 | 0 | 0 | 0 | 0 |" in text
    assert [path.name for path in (folder / "no_helpfulness").iterdir()] == ["train.parquet"]


def test_a_folder_with_files_is_not_touched(built, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("...")
    with pytest.raises(FileExistsError, match="exists already"):
        save_cyclic_dataset(built, tmp_path / "mine", "made up")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_push_and_load_all_configurations(hub_server, built, tmp_path):
    copy = save_cyclic_dataset(built, tmp_path / "named", "made up", repo="alice/cyclic")
    (block,) = re.findall(r"```python\n(.*?)```", (copy / "README.md").read_text(), re.DOTALL)
    script = """
        import sys
        from datasets import load_dataset
        from gpm_hf.hub.cyclic_dataset import push_cyclic_dataset
        folder, block, *names = sys.argv[1:]
        push_cyclic_dataset(folder, "alice/cyclic", private=True)
        for name in names:
            whole = load_dataset("alice/cyclic", name)
            streamed = load_dataset("alice/cyclic", name, split="train", streaming=True)
            assert list(streamed) == list(whole["train"])
            print(name, *(len(rows) for rows in whole.values()))
        print(load_dataset("alice/cyclic", "all_groups", split="train").column_names)
        shown = {}
        exec(block, shown)
        print(len(shown["pairs"]), len(shown["groups"]))
    """
    out = run_python(hub_server, script, copy, block, *built, token="hf_alice").stdout
    assert len(hub_server.matching("^POST .*/commit/main")) == 1
    pushed = hub_server.repo("alice/cyclic", "datasets").resolve("main").files["README.md"].data.decode()
    assert pushed == (copy / "README.md").read_text()
    lines = out.splitlines()
    assert lines[-1].split() == [str(len(built["all"]["train"])), str(len(built.groups("all")["train"]))]
    for name, splits in built.items():
        assert f"{name} {' '.join(str(len(rows)) for rows in splits.values())}" in lines
    assert "['prompt', 'responses', 'scores']" in lines
    load = "from datasets import load_dataset; load_dataset('alice/cyclic', 'all')"
    with pytest.raises(RuntimeError, match=r"doesn't exist on the Hub or cannot be accessed|401"):
        run_python(hub_server, load)


@pytest.mark.slow
def test_a_second_upload_leaves_no_file_of_the_first(hub_server, folder, tmp_path):
    rows = [row("q", *[(*ratings, "1") for ratings in RING_OF_THREE])]
    second = save_cyclic_dataset(build_cyclic_dataset(rows), tmp_path / "second", "made up")
    push = """
        import sys
        from gpm_hf.hub.cyclic_dataset import push_cyclic_dataset
        for folder in sys.argv[1:]:
            push_cyclic_dataset(folder, "alice/cyclic")
    """
    run_python(hub_server, push, folder, second, token="hf_alice")
    files = hub_server.repo("alice/cyclic", "datasets").resolve("main").files
    assert {path for path in files if path.endswith(".parquet")} == {
        "no_helpfulness/train.parquet",
        "no_helpfulness_groups/train.parquet",
    }
