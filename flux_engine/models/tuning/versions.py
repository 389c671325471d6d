"""Versions of installed packages, for the keys of what was made with them."""

from __future__ import annotations

from importlib import metadata


def version_of(package: str) -> str:
    """The version of an installed package, or `absent`."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"
