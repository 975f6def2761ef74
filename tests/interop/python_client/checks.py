"""What scenarios assert with: every failure says what was compared and what came instead."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

SHOWN = 300


class ScenarioFailed(Exception):
    """Something was not as the scenario expects."""


def shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def expect(actual: object, expected: object, what: str) -> None:
    """Fail unless `actual` equals `expected`."""
    if actual != expected:
        raise ScenarioFailed(f"{what}: expected {shown(expected)}, got {shown(actual)}")


def expect_true(condition: object, what: str) -> None:
    """Fail unless `condition` holds."""
    if not condition:
        raise ScenarioFailed(what)


def expect_rising(offsets: list[str], what: str) -> None:
    """Fail unless each offset sorts after the one before it, compared as text."""
    expect_true(all(first < second for first, second in pairwise(offsets)), f"{what}: {shown(offsets)}")


async def expect_error(work: Callable[[], Awaitable[Any]], kind: type[Exception], status: int, what: str) -> Any:
    """Return the error of `work`, which must be of this kind and carry this HTTP status."""
    try:
        result = await work()
    except kind as error:
        expect(getattr(error, "status", None), status, f"{what}: status of {type(error).__name__}")
        return error
    raise ScenarioFailed(f"{what}: expected {kind.__name__}, got the result {shown(result)}")
