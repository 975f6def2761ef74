"""External programs that tests use."""

from __future__ import annotations

import os
import shutil
from typing import Final
from unittest import SkipTest

#: Program -> Debian package.
PACKAGES: Final = {
    "caddy": "caddy",
    "curl": "curl",
    "faketime": "faketime",
    "haproxy": "haproxy",
    "h2load": "nghttp2-client",
    "nghttp": "nghttp2-client",
    "nginx": "nginx-light",
}


def program(name: str) -> str:
    """
    Return the path of a program; skip the test if it is missing.

    :raises SkipTest: it is not installed here; where everything has to be (``CI`` is set), that is a failure.
    """
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        sentence = f"{name} is not installed: apt-get install {PACKAGES[name]}"
        if os.environ.get("CI"):
            raise AssertionError(sentence)
        raise SkipTest(sentence)
    return path
