"""The records of a new subscription, and the removal of those of an old one."""

from __future__ import annotations

from sys import intern
from typing import Final

from msgspec.structs import replace

from .decisions import Current
from .model import Link, State, StreamTail, Subscription
from .records import encode, snapshot_key, state_key, subscription_key

#: The state of a new subscription, and its record; one object for all.
NEW: Final = State()
NEW_RECORD: Final = encode(NEW)


def with_shared_strings(subscription: Subscription) -> Subscription:
    """Return a subscription with strings that many have, such as the URL of a receiver, as one object for all."""
    config = subscription.config
    url, wake_stream = config.webhook_url, config.wake_stream
    config = replace(config, webhook_url=url and intern(url), wake_stream=wake_stream and intern(wake_stream))
    return replace(subscription, base_url=intern(subscription.base_url), config=config)


def create(subscription: Subscription) -> tuple[dict[str, bytes], dict[str, None]]:
    """
    Return the records of a new, idle subscription, and those expected: none.

    Register its pattern before the streams are listed, and write its links (:func:`link_at_tail`) before these records:
    links without the subscription of their birth are left-overs, which are removed at the next start. Afterwards, call
    :meth:`.Machine.reconcile` for streams that were created meanwhile.
    """
    puts = {subscription_key(subscription.id): encode(subscription), state_key(subscription.id): NEW_RECORD}
    return puts, dict.fromkeys(puts)


def link_at_tail(tail: StreamTail | None, explicit: bool) -> Link:
    """Return a link whose cursor is the tail of a stream, or the start if there is no stream."""
    if tail is None:
        return Link(explicit)
    return Link(explicit, tail.stream_id, tail.incarnation, tail.position)


def delete(current: Current) -> tuple[dict[str, bytes | None], dict[str, bytes | None]]:
    """
    Return the records to remove for a deletion, and those expected.

    After that write there is no subscription. Then remove its link records, in slices if there are many, each only if
    it still has the birth of this subscription.
    """
    subscription_id = current.subscription.id
    puts: dict[str, bytes | None] = {subscription_key(subscription_id): None, state_key(subscription_id): None}
    if current.snapshot is not None:
        puts[snapshot_key(subscription_id)] = None
    return puts, {state_key(subscription_id): current.stored}
