"""The name and the version of this distribution."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

DISTRIBUTION: Final = "durable-streams-server"


def version_of_server() -> str:
    """Return the installed version, or ``unknown`` if the code runs from a checkout that is not installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "unknown"
