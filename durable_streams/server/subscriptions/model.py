"""Frozen values of subscriptions. Times are seconds since 1970 (UTC) unless a name ends in ``_ms``.

Stored are :class:`Subscription` (written once), :class:`State` (200 bytes, written for each wake, ack, attempt and
change of links), :class:`Snapshot` (written once for each wake) and :class:`Link` (one record for each linked stream).
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from msgspec import Struct

from ..model import Offset

DeliveryType = Literal["webhook", "pull-wake"]
LinkType = Literal["explicit", "glob"]

#: The offset of the cursor of a link whose stream does not exist, and the tail of that stream.
ABSENT: Final = "-1"


class SubscriptionConfig(Struct, frozen=True, array_like=True, gc=False):
    """
    The configuration of a subscription, normalized: what a repeated creation is compared with.

    :ivar pattern: of names (:mod:`.patterns`), or None.
    :ivar streams: the explicit streams at creation, sorted, without duplicates. Later membership is in the links.
    :ivar webhook_url: as sent; None for pull-wake.
    :ivar wake_stream: the name of the stream that gets wake events; None for webhook.
    """

    type: DeliveryType
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    webhook_url: str | None = None
    wake_stream: str | None = None
    lease_ttl_ms: int = 30_000
    description: str | None = None

    @property
    def lease_seconds(self) -> float:
        """The duration of a lease in seconds."""
        return self.lease_ttl_ms / 1000


class Subscription(Struct, frozen=True, array_like=True, gc=False):
    """
    What does not change about a subscription until it is deleted.

    :ivar birth: a random number that distinguishes it from other subscriptions that have or had its id. Its link
        records have it; a link record with another one is a left-over that may be removed.
    :ivar base_url: of the streams, as the client saw it that created the subscription, such as
        ``https://streams.example/v1/stream``: what ``jwks_url`` and ``callback_url`` begin with.
    :ivar digest: the SHA-256 of the configuration's canonical form.
    """

    id: str
    birth: int
    config: SubscriptionConfig
    base_url: str
    created_at: float
    digest: bytes


class StreamTail(Struct, frozen=True, gc=False):
    """
    The tail of an existing stream.

    :ivar stream_id: as in StreamFacts; differs from that of each earlier stream of the name.
    :ivar position: the number of bytes before the tail.
    """

    stream_id: int
    incarnation: int
    position: int

    @property
    def offset(self) -> str:
        """The tail as an offset of the stream."""
        return str(Offset(self.incarnation, self.position))


class Link(Struct, frozen=True, gc=False):
    """
    A linked stream, with its cursor. Whether the pattern matches too follows from the path.

    :ivar explicit: whether it was named by the configuration or added; else it is linked by the pattern alone.
    :ivar stream_id: the stream that the cursor belongs to; None for the start of whatever stream comes.
    :ivar position: the number of bytes that were processed.
    """

    explicit: bool
    stream_id: int | None = None
    incarnation: int = 0
    position: int = 0

    @property
    def link_type(self) -> LinkType:
        """The type of the link in bodies."""
        return "explicit" if self.explicit else "glob"

    def cursor(self, tail: StreamTail | None) -> int:
        """Return the position of the cursor in a stream: 0 if it belongs to an earlier stream of the name."""
        return self.position if tail is not None and tail.stream_id == self.stream_id else 0

    def pending(self, tail: StreamTail | None) -> bool:
        """Return whether the stream exists and has data after the cursor."""
        return tail is not None and tail.position > self.cursor(tail)

    def acked_offset(self, tail: StreamTail | None) -> str:
        """Return the cursor as an offset of the stream, ``-1`` if there is no stream."""
        return ABSENT if tail is None else str(Offset(tail.incarnation, self.cursor(tail)))


class SnapshotEntry(Struct, frozen=True, array_like=True, gc=False):
    """
    A linked stream at the time of a wake or a claim. ``cursor`` and ``tail`` are positions.

    :ivar stream_id: None if there was no stream; the incarnation and the positions are 0 then.
    """

    path: str
    explicit: bool
    stream_id: int | None
    incarnation: int
    cursor: int
    tail: int

    @property
    def link_type(self) -> LinkType:
        """The type of the link in bodies."""
        return "explicit" if self.explicit else "glob"

    @property
    def acked_offset(self) -> str:
        """The cursor as an offset of the stream."""
        return ABSENT if self.stream_id is None else str(Offset(self.incarnation, self.cursor))

    @property
    def tail_offset(self) -> str:
        """The tail as an offset of the stream."""
        return ABSENT if self.stream_id is None else str(Offset(self.incarnation, self.tail))

    @property
    def has_pending(self) -> bool:
        """Whether the stream had data after the cursor."""
        return self.tail > self.cursor


class Snapshot(Struct, frozen=True, array_like=True, gc=False):
    """
    The linked streams of one wake, sorted by path: all up to 1,000, else the first 1,000 pending ones.

    :ivar wake_id: of the wake it belongs to; a stored snapshot of another wake is ignored.
    """

    wake_id: str
    entries: tuple[SnapshotEntry, ...]


class Wake(Struct, frozen=True, array_like=True, gc=False):
    """
    A wake in flight, or leased.

    :ivar stream: the first pending path at its issue: the ``stream`` of the wake event.
    :ivar issued_at: the ``ts`` of the wake event.
    :ivar holder: the worker of a claim; None for an unclaimed pull-wake, and for webhooks.
    :ivar lease_until: the end of the lease; None for an unclaimed pull-wake.
    :ivar delivered: webhook: whether a receiver accepted it or called back; pull-wake: whether its event is in the wake
        stream, or is not needed any more.
    :ivar failures: the failed delivery attempts in a row.
    :ivar attempting: whether a delivery attempt was begun that has no outcome yet.
    :ivar next_attempt_at: when the next delivery attempt is due; None if delivered. While an attempt runs, it is a
        second after the time limit of the attempt.
    :ivar progress: whether an ack has moved a cursor.
    """

    wake_id: str
    generation: int
    stream: str
    issued_at: float
    holder: str | None = None
    lease_until: float | None = None
    delivered: bool = False
    failures: int = 0
    attempting: bool = False
    next_attempt_at: float | None = None
    progress: bool = False


class State(Struct, frozen=True, array_like=True, gc=False):
    """
    What changes about a subscription.

    :ivar generation: of the last wake; 0 before the first. It never falls.
    :ivar fruitless: the number of wakes in a row that ended without an ack that moved a cursor.
    :ivar scheduled_at: when the next wake is issued if there is pending work then; None if it needs no delay.
    :ivar revision: counts the decisions that changed links, so that a node which has not seen such a change cannot
        write. Set by :func:`.decisions.decision` alone.
    """

    generation: int = 0
    wake: Wake | None = None
    fruitless: int = 0
    scheduled_at: float | None = None
    revision: int = 0

    @property
    def status(self) -> Literal["active", "failed"]:
        """The ``status`` in bodies: failed while a delivery is to be tried again."""
        return "failed" if self.wake is not None and self.wake.failures else "active"


class TokenClaims(Struct, frozen=True):
    """What a token says: the wake that its bearer may acknowledge."""

    subscription_id: str
    generation: int
    wake_id: str


class Ack(Struct, frozen=True):
    """One acknowledgement: all data of the stream before the offset was processed. The offset is as received."""

    path: str
    offset: str


class AckRequest(Struct, frozen=True):
    """The body of an ack or a callback. A release is one without ``acks``; its ``done`` is not looked at."""

    wake_id: str
    generation: int
    acks: tuple[Ack, ...] = ()
    done: bool = False


class Outcome(Enum):
    """The outcome of a delivery attempt: of a webhook request, or of the append of a wake event."""

    #: Webhook only: a 2xx answer with a JSON object whose ``done`` is true.
    DONE = "done"
    #: Another 2xx answer; or the wake event is in the wake stream.
    ACCEPTED = "accepted"
    #: Anything else.
    FAILED = "failed"


class Draw(Struct, frozen=True):
    """
    The random values of one decision, drawn by the caller for each.

    :ivar wake_id: ``w_`` and at least 128 random bits in base64url; never drawn twice.
    :ivar jitter: uniform between 0.8 and 1.2: the factor of a retry delay.
    """

    wake_id: str
    jitter: float = 1.0


class DeliveryDue(Struct, frozen=True):
    """
    Effect: a delivery attempt of this wake is due. Queue it; when a slot is free, call ``Machine.attempt``.

    There is at most one delivery of a subscription at a time: if one is running, keep the last of these until it ends.
    """

    wake_id: str


class DeliverWebhook(Struct, frozen=True):
    """Effect: send the snapshot of the wake to ``url``, then call ``Machine.outcome`` with this effect's wake_id."""

    url: str
    wake_id: str
    generation: int
    snapshot: Snapshot


class AppendWakeEvent(Struct, frozen=True):
    """
    Effect: append ``event`` to the wake stream, then call ``Machine.outcome`` with this effect's wake_id.

    The append is by the writer ``writer_id`` with epoch ``generation`` and sequence number 0; a duplicate is a success.

    :ivar event: the message, in the order of its members.
    """

    wake_stream: str
    wake_id: str
    generation: int
    writer_id: str
    event: dict[str, str | int]


Effect = DeliveryDue | DeliverWebhook | AppendWakeEvent


class Claimed(Struct, frozen=True):
    """The answer to a claim; the caller adds the token."""

    wake_id: str
    generation: int
    snapshot: Snapshot
    lease_ttl_ms: int


class Acked(Struct, frozen=True):
    """The answer to an ack or a callback: ``next_wake`` as in the body."""

    next_wake: bool
