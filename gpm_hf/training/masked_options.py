"""Options of trainers, shown and logged without the secrets in them."""

from typing import Any

from typing_extensions import override

from gpm_hf.masking import masked


class MaskedOptionsMixin:
    """
    transformers masks options whose name ends in `_token`; here secrets inside options, such as the token in
    `model_init_kwargs`, are masked as well, wherever options are written, logged or sent to a tracker. It stands
    before a class of options, and is none itself: its fields would take the place of that class's.
    """

    def to_dict(self) -> dict[str, Any]:
        """As the parent's, secrets masked."""
        return masked(super().to_dict())  # type: ignore[misc]

    @override
    def __str__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    __repr__ = __str__
