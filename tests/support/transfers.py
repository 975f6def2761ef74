"""Documents, and streams on a Clock, for tests of transfers."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.interfaces import settle
from durable_streams.server.model import FOREVER, Append, Fork, Lifetime, StreamConfig
from durable_streams.server.protocol.content import JSON_TYPE
from durable_streams.server.protocol.messages import wire_form
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from tests.support.late_storage import DELAY

T = TypeVar("T")

#: A transfer of the tests takes fewer steps of a :class:`.LateStorage` than this.
MAX_STEPS = 500

#: A document that the Rust server's program of version 0.3.0 has exported.
RECORDED = Path(__file__).parent.parent / "transfer" / "rust-0.3.0.json"


def stream_object(
    name: str = "a", content_type: str = "text/plain", *messages: bytes, **changes: Any
) -> dict[str, Any]:
    """Return a stream of a document as the Rust server writes it."""
    config = {"content_type": content_type, "ttl_seconds": None, "expires_at": None, "created_closed": False}
    config.update(changes.pop("config", {}))
    entries = []
    size = 0
    for number, data in enumerate(messages):
        entries.append({"offset": f"{number:016x}_{size:016x}", "data_base64": b64encode(data).decode()})
        size += len(data)
    stream = {
        "name": name,
        "config": config,
        "closed": False,
        "created_at": "2026-11-30T12:13:16Z",
        "updated_at": None,
        "total_bytes": size,
        "message_count": len(messages),
        "next_offset": f"{len(messages):016x}_{size:016x}",
        "messages": entries,
    }
    return stream | changes


def document_object(*streams: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a document as the Rust server writes it."""
    document = {
        "format_version": 1,
        "exported_at": "2026-11-30T12:13:16Z",
        "server_version": "0.3.0",
        "streams": list(streams),
    }
    return document | changes


def pretty(value: Any) -> bytes:
    """Return JSON as serde_json's pretty printer writes it."""
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    """Return data in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


class TransferCase(SynchronousTestCase):
    """Tests with streams in memory on a Clock. Blocking calls run at once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000)
        self.directory = self.mktemp()
        Path(self.directory).mkdir()
        self.streams = self.started(Streams(MemoryStorage(), self.clock))

    def started(self, streams: Streams) -> Streams:
        """Start a service, and stop it at the end of the test."""
        streams.startService()
        self.addCleanup(streams.stopService)
        return streams

    def run_to_end(self, work: Coroutine[Any, Any, T] | Deferred[T]) -> T:
        """Turn the Clock until a coroutine or a Deferred has its result; raise its error."""
        outcomes: list[Any] = []
        deferred = work if isinstance(work, Deferred) else Deferred.fromCoroutine(work)
        deferred.addBoth(outcomes.append)
        for _ in range(1_000_000):
            if outcomes:
                break
            self.clock.advance(0)
        else:
            self.fail("it does not end")
        if isinstance(outcomes[0], Failure):
            outcomes[0].raiseException()
        return outcomes[0]  # type: ignore[no-any-return]

    def outcome_of(self, work: Deferred[Any], cancelled_after: int | None = None) -> Any:
        """
        Advance the Clock by the delay of a :class:`.LateStorage`, step by step, until a Deferred has its result.

        :param cancelled_after: the number of steps after which it is cancelled; None for never.
        :returns: its result or :class:`Failure`; None if it has none after ``4 * MAX_STEPS`` steps.
        """
        outcomes: list[Any] = []
        work.addBoth(outcomes.append)
        for step in range(4 * MAX_STEPS):
            if step == cancelled_after:
                work.cancel()
            if outcomes:
                return outcomes[0]
            self.clock.advance(DELAY)
        return None

    def make(
        self,
        name: str,
        content_type: str = "text/plain",
        *bodies: bytes,
        close: bool = False,
        created_closed: bool = False,
        lifetime: Lifetime = FOREVER,
        fork: Fork | None = None,
    ) -> None:
        """Create a stream, and make an append of each body."""
        config = StreamConfig(content_type, lifetime, created_closed, fork)

        async def make() -> None:
            await settle(self.streams.create(name, config, b""))
            json_mode = content_type.startswith(JSON_TYPE)
            media = content_type.partition(";")[0].lower()
            for body in bodies:
                data = wire_form(body) if json_mode else body
                await settle(self.streams.append(name, Append(media, data)))
            if close:
                await settle(self.streams.append(name, Append(None, b"", close=True)))

        self.run_to_end(make())

    def left_files(self) -> list[str]:
        """Return the names of what is in the directory for temporary files."""
        return sorted(path.name for path in Path(self.directory).iterdir())
