"""Run every scenario of the Python client against the server at the URL given; one JSON line for each.

If a control and the name of a set follow, run that set instead: ``restored``, whose control is the URL of the server
that replaces it by a restored one, or ``guarded``, whose control is the secret that signs tokens.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import traceback
import uuid
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.interop.python_client import following, producing, reading, refreshing, restoring, writing
from tests.interop.python_client.checks import ScenarioFailed
from tests.interop.python_client.drivers import HAS_PRODUCERS, AsyncDriver, Driver, SyncDriver

SCENARIO_SECONDS = 25.0


class Scenario(Protocol):
    """A function that uses a stream of its own through a driver."""

    __name__: str

    def __call__(self, api: Driver, url: str, /) -> Awaitable[None]: ...


SETS = {"restored": restoring.scenarios, "guarded": refreshing.scenarios}


def scenarios(driver: Driver, control: str | None, chosen: str) -> Iterator[Any]:
    """What this driver can do with the client that is installed."""
    if control is not None:
        yield from SETS[chosen](control)
        return
    yield from (*writing.SCENARIOS, *reading.SCENARIOS, *following.SCENARIOS, *producing.SCENARIOS)
    if not HAS_PRODUCERS:
        yield from following.SSE_FROM_THE_FIRST_REQUEST
    elif driver.name == "async":
        yield from producing.PRODUCER_CLASS_SCENARIOS


def why_it_failed(driver: Driver, scenario: Scenario, url: str) -> str | None:
    """None if the scenario succeeded."""
    try:
        asyncio.run(asyncio.wait_for(scenario(driver, url), SCENARIO_SECONDS))
    except ScenarioFailed as failure:
        return str(failure)
    except TimeoutError:
        return f"not done after {SCENARIO_SECONDS:.0f} s"
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})"
    return None


def main(base_url: str, control: str | None = None, chosen: str = "") -> None:
    for driver in (SyncDriver(), AsyncDriver()):
        for scenario in scenarios(driver, control, chosen):
            name = scenario.__name__
            began = time.monotonic()
            why = why_it_failed(driver, scenario, f"{base_url}/v1/stream/interop/{name}-{uuid.uuid4().hex[:12]}")
            line = {"scenario": f"{driver.name} {name}", "why": why, "seconds": time.monotonic() - began}
            print(json.dumps(line), flush=True)
    print(json.dumps({"finished": True}), flush=True)


main(sys.argv[1].rstrip("/"), *sys.argv[2:])
