"""External programs that tests use."""

from __future__ import annotations

import os
import shutil
from typing import Final

from .skipping import skip_not_installed

#: Program -> Debian package.
PACKAGES: Final = {
    "caddy": "caddy",
    "curl": "curl",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "h2load": "nghttp2-client",
    "nghttp": "nghttp2-client",
    "nginx": "nginx-light",
    "node": "nodejs",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
}


def program(name: str) -> str:
    """Return the path of a program; skip or fail the test if it is not installed."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        skip_not_installed(name, f"apt-get install {PACKAGES[name]}")
    return path
