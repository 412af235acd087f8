"""Data sets of prompts, as online training takes them."""

from typing import Any

from gpm_hf.data.columns import check_text_columns


def check_prompt_columns(**datasets: Any) -> None:
    """
    Args:
        datasets: data sets by their names, or dictionaries of several; `None` where there is none.

    Raises:
        ValueError: one has no column `prompt`, naming it and its columns, or a number or a date where text belongs.
    """
    for name, dataset in datasets.items():
        if isinstance(dataset, dict):
            check_prompt_columns(**dataset)
        elif dataset is not None and dataset.column_names is not None and "prompt" not in dataset.column_names:
            raise ValueError(
                f"The {name} data set has the columns {sorted(dataset.column_names)} and no `prompt`, to which the "
                "policy could respond. Rename the column with the prompts: strings, or lists of chat messages. Of "
                "HH-RLHF, votes, ratings and other preference data `gpm-hf data convert` writes them."
            )
        elif dataset is not None:
            check_text_columns(dataset, f"The {name} data set")
