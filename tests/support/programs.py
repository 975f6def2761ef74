"""External programs that tests use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from .skipping import skip_not_installed

#: Program -> Debian package.
PACKAGES: Final = {
    "caddy": "caddy",
    "curl": "curl",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "jq": "jq",
    "h2load": "nghttp2-client",
    "nghttp": "nghttp2-client",
    "nginx": "nginx-light",
    "node": "nodejs",
    "openssl": "openssl",
    "pgbouncer": "pgbouncer",
    "postgres": "postgresql",
    "systemd-analyze": "systemd",
}


def _versions() -> list[str]:
    """Return the directories of Debian's PostgreSQL programs, the newest version first; they are not in PATH."""
    found = Path("/usr/lib/postgresql").glob("*/bin")
    return [str(path) for path in sorted(found, key=lambda path: int(path.parent.name), reverse=True)]


def program(name: str) -> str:
    """Return the path of a program; skip or fail the test if it is not installed."""
    path = shutil.which(name, path=":".join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *_versions()]))
    if path is None:
        skip_not_installed(name, f"apt-get install {PACKAGES[name]}")
    return path


def postgres_programs() -> Path:
    """
    Return the directory of PostgreSQL's programs; skip or fail the test if it is not installed.

    ``POSTGRES_BIN`` chooses a version that is not installed. ``initdb`` and ``postgres`` are enough.
    """
    chosen = os.environ.get("POSTGRES_BIN")
    return Path(chosen).resolve() if chosen else Path(program("postgres")).resolve().parent
