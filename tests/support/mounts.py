"""Small file systems for a test, where mounting is permitted."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from .skipping import skip_not_permitted


def small_disk(size: str, clean_up: Callable[..., None]) -> Path:
    """
    Mount a tmpfs.

    :param size: as mount(8) has it.
    :param clean_up: is given what is to be done when the test is over, last first.
    :raises SkipTest: mounting is not permitted.
    """
    place = tempfile.mkdtemp()
    clean_up(Path(place).rmdir)
    mounted = _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place)
    if mounted is not None:
        skip_not_permitted(f"mounting a tmpfs: {mounted}")
    clean_up(_run, "umount", "--lazy", place)
    return Path(place)


def make_read_only(place: Path) -> None:
    """
    Mount what :func:`small_disk` has mounted again, read-only.

    :raises SkipTest: mounting is not permitted.
    """
    refusal = _run("mount", "-o", "remount,ro", str(place))
    if refusal is not None:
        skip_not_permitted(f"mounting a tmpfs again: {refusal}")


def _run(*command: str) -> str | None:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except OSError as error:
        return str(error)
    return ended.stderr.strip() or "no reason given" if ended.returncode else None
