"""Where the card templates are: inside an installed package, or beside the package in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def card_template(name: str) -> str:
    """
    Path of a template in `model_cards/`.

    Raises:
        FileNotFoundError: where the installation lacks it.
    """
    candidates = [_PACKAGE / "model_cards" / name, _PACKAGE.parent / "model_cards" / name]
    for path in candidates:
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f"The card template {name} is in none of {[str(path) for path in candidates]}; reinstall.")
