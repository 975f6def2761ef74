"""Whatever asks a server questions, against one front of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tests.conformance.fronts import FrontFailure
from tests.conformance.report import SuiteResult


class Server(Protocol):
    """What is asked, such as a :class:`.FrontProcess`."""

    @property
    def base_url(self) -> str: ...

    def start(self) -> None: ...

    def stop(self) -> list[str]: ...


def against(process: Server, ask: Callable[[str], SuiteResult]) -> SuiteResult:
    """Start a front, ask it by its URL, stop it; what is wrong with its end is a problem as well."""
    try:
        process.start()
    except FrontFailure as failure:
        return SuiteResult(0, [str(failure)])
    complaints: list[str] = []
    try:
        result = ask(process.base_url)
    finally:
        complaints = process.stop()
    result.problems.extend(complaints)
    return result
