"""Files that are no code: inside an installed package, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def card_template(name: str) -> str:
    """
    Path of a template in `model_cards/`.

    Raises:
        FileNotFoundError: where the installation lacks it.
    """
    return _shipped_file("card template", name, _PACKAGE / "model_cards", _PACKAGE.parent / "model_cards")


def launcher_config(name: str) -> str:
    """
    Path of a configuration for `accelerate launch` (`ddp`, `fsdp2`, `zero2`, `zero3`) in `trainers/configs/`.

    Raises:
        FileNotFoundError: for a name that is none of them; the sentence lists them.
    """
    folders = (_PACKAGE / "scripts" / "configs", _PACKAGE.parent / "trainers" / "configs")
    return _shipped_file("launcher configuration", f"{name}.yaml", *folders)


def _shipped_file(kind: str, name: str, *folders: Path) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    known = sorted(path.name for folder in folders if folder.is_dir() for path in folder.iterdir())
    raise FileNotFoundError(f"There is no {kind} {name}; there are {known}. Give one of these, or reinstall.")
