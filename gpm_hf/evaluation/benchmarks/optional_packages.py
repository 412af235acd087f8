"""What is said where a package that an evaluation needs cannot be imported."""


def import_error(error: ImportError, package: str, purpose: str) -> ImportError:
    """
    The error to raise: one that says to install the package where it is not there, and what stands in its way where it
    is.

    Args:
        error: what importing it raised.
        package: its import name, part of the extra `judge`.
        purpose: what needs it, the beginning of a sentence.
    """
    if error.name == package:
        return ImportError(f"{purpose} needs a package that is not installed: pip install 'gpm-hf[judge]'.")
    remedy = "install what it lacks"
    if error.name == "pkg_resources":
        remedy = "setuptools has that up to version 80: pip install 'setuptools<81'"
    return ImportError(f"{purpose} needs {package}, which is installed but cannot be imported ({error}): {remedy}.")
