"""Code blocks of the documentation, and how to run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .daemon import CHECKOUT, PATIENCE, environment


def block_after(page: Path, words: str) -> str:
    """Return the first code block of a page after these words, without its indentation."""
    text = page.read_text()
    assert words in text, words
    lines = text.partition(words)[2].partition("::\n\n")[2].splitlines()
    end = next((place for place, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
    return "\n".join(line.removeprefix("    ") for line in lines[:end]) + "\n"


def run_under_trial(folder: Path, source: str, *paths: Path) -> str:
    """
    Run a test module under trial in a process of its own.

    :param paths: folders for ``sys.path``, besides the checkout.
    :returns: its output; an exit status other than 0 fails the calling test.
    """
    folder = folder.absolute()
    folder.mkdir()
    (folder / "test_page.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "twisted.trial", "test_page"],
        cwd=folder,
        env=environment(0) | {"PYTHONPATH": os.pathsep.join(map(str, (folder, *paths, CHECKOUT)))},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output
