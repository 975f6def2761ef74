"""Scenarios that are played in a browser, one after another."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from tests.conformance.processes import ProgramFailure
from tests.conformance.report import SuiteResult
from tests.walkthroughs.chromium import Browser, BrowserError

SECONDS = 60.0

T = TypeVar("T")


class Wrong(Exception):
    """A page did not do what the documentation says."""


def eventually(condition: Callable[[], bool], failure: Callable[[], str]) -> None:
    """
    Wait for a condition.

    :param failure: returns what is wrong if it is still false after :data:`SECONDS`.
    """
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Wrong(failure())
        time.sleep(0.02)


def play(scenarios: Iterable[Callable[[T, Browser], None]], followed: T, output: Callable[[], str]) -> SuiteResult:
    """
    Play scenarios in one browser.

    :param followed: what each scenario is given beside the browser.
    :param output: returns what the programs have written, whose end is shown with a failure.
    """
    result = SuiteResult()
    with Browser(str(shutil.which("chromium"))) as browser:
        for scenario in scenarios:
            try:
                scenario(followed, browser)
            except (Wrong, BrowserError, ProgramFailure) as failure:
                result.problems.append(f"FAILED {scenario.__name__}: {failure}\n{output()[-3000:]}")
            else:
                result.passed += 1
    return result
