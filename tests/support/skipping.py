"""
The only functions that skip a test. Each is named after the kind of reason.

If ``REQUIRE_PROGRAMS`` is set, as in ``.ci/run``, missing programs and libraries fail the test instead. The variable is
not ``CI``: if that is set, Hypothesis repeats the same examples in every run.
"""

from __future__ import annotations

import os
from typing import NoReturn
from unittest import SkipTest


def skip_not_installed(what: str, remedy: str) -> NoReturn:
    """
    Skip the test because a program or library is missing.

    :param remedy: the command that installs it.
    :raises AssertionError: ``REQUIRE_PROGRAMS`` is set.
    """
    sentence = f"{what} is not installed: {remedy}"
    if os.environ.get("REQUIRE_PROGRAMS"):
        raise AssertionError(sentence)
    raise SkipTest(sentence)


def skip_not_permitted(reason: str) -> NoReturn:
    """Skip the test because the process does not have the permissions that it needs, such as those of root."""
    raise SkipTest(f"not permitted: {reason}")


def skip_other_platform(reason: str) -> NoReturn:
    """Skip the test because it is about a system or a reactor that is not in use."""
    raise SkipTest(f"another platform: {reason}")


def skip_not_built(what: str, remedy: str) -> NoReturn:
    """Skip the test because a program is missing that takes minutes to build, so that it is not required anywhere."""
    raise SkipTest(f"{what} is not built: {remedy}")


def skip_not_applicable(reason: str) -> NoReturn:
    """Skip a test of a contract that says nothing about what is tested here."""
    raise SkipTest(f"not applicable: {reason}")
