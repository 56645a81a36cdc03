"""Versions of installed packages."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """Returns the version of an installed package, or "unknown"."""
    try:
        return version(package)
    except PackageNotFoundError:  # a source checkout that is not installed
        return "unknown"
