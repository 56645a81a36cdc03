"""What runs here: versions of packages."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return "unknown"
