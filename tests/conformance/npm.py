"""Installing the npm packages a directory's package.json asks for."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conformance.processes import run_checked

INSTALL_SECONDS = 300.0


def install_newest(directory: Path, package: str) -> str:
    """Install the newest of what `directory` asks for, and return the version of `package` among it."""
    run_checked(
        ("npm", "update", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"),
        seconds=INSTALL_SECONDS,
        cwd=directory,
    )
    description = json.loads((directory / "node_modules" / package / "package.json").read_text("utf-8"))
    return str(description["version"])
