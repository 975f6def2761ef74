"""Values that tests of storages share: times, sizes, configurations."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from ..errors import (
    StreamsError,
)
from ..model import (
    StreamConfig,
)

T = TypeVar("T")
E = TypeVar("E", bound=StreamsError)

#: When the tests begin, in seconds since 1970.
T0 = 1_800_000_000.0

#: How long a stream remembers a writer that sends nothing, in seconds (PROTOCOL section 5.2.1).
WEEK = 7 * 24 * 3600

#: More bytes than any test writes.
ALL = 2**40

OCTETS = StreamConfig()
TEXT = StreamConfig("text/plain")
JSON = StreamConfig("application/json")


async def settled(outcome: T | Awaitable[T]) -> T:
    """
    Return a result; await it first if it is awaitable.

    :param outcome: what a method of a storage returned: the outcome itself, or something to be awaited for it.
    """
    return await outcome if isinstance(outcome, Awaitable) else outcome
