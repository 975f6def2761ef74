"""The creation and removal of staged streams: under reserved names, and with a TTL."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from ..errors import StreamsError
from ..interfaces import NowOrLater, settle
from ..streams import Streams

T = TypeVar("T")

#: The TTL of a staged stream, in seconds. What a crash leaves expires by itself.
STAGING_TTL: Final = 3600


async def shielded(outcome: NowOrLater[T]) -> T:
    """Await an operation. If that is cancelled, wait for the end of the operation nevertheless, and then raise."""
    if not isinstance(outcome, Deferred):
        return outcome
    ended: Deferred[T] = Deferred()
    late: Deferred[T] = Deferred()

    def end(result: T | Failure) -> None:
        (late if ended.called else ended).callback(result)

    outcome.addBoth(end)
    try:
        return await ended
    except CancelledError:
        if not outcome.called:
            with suppress(StreamsError):
                await late
        raise


async def remove_staged(streams: Streams, name: str) -> None:
    """Delete a staged stream. It is kept while it has forks. If the deletion fails, the stream expires later."""
    with suppress(StreamsError):
        await settle(streams.delete(name))
