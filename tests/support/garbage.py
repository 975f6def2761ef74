"""Detection of reference cycles and of objects that are never freed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from msgspec import Struct

#: Values of at least this size, in bytes, must be freed without the garbage collector.
LARGE = 16_384

_HOLDERS = (BytesIO, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset, Struct)


@contextmanager
def garbage() -> Iterator[list[Any]]:
    """
    Disable the collector for a block, and collect at its end.

    :returns: a list that is filled at the end: the objects that were left in reference cycles, and what these hold.
    """
    found: list[Any] = []
    flags = gc.get_debug()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.enable()


def large_values(found: list[Any], min_size: int = LARGE) -> list[int]:
    """List the sizes of the bytes that objects hold, from ``min_size`` on."""
    seen: dict[int, Any] = {}
    pending = list(found)
    while pending:
        held = pending.pop()
        if id(held) in seen:
            continue
        seen[id(held)] = held
        if isinstance(held, memoryview):
            pending.append(held.obj)
        elif isinstance(held, BytesIO):
            pending += [] if held.closed else [held.getvalue()]
        elif isinstance(held, Struct):
            # The collector does not see what those hold that it does not track.
            pending += [getattr(held, name) for name in held.__struct_fields__]
        elif not isinstance(held, (bytes, bytearray)):
            pending += [each for each in gc.get_referents(held) if isinstance(each, _HOLDERS)]
    return sorted(len(held) for held in seen.values() if isinstance(held, (bytes, bytearray)) and len(held) >= min_size)


def living(kind: type) -> int:
    """Count the instances of a class and its subclasses after a full collection."""
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())
