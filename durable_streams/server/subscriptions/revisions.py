"""
Revisions of subscriptions in a storage that several nodes share.

Each change of a subscription changes its record ``wakes/ID``: besides the state it has a revision there, which begins
at the subscription's birth and grows by one with each change. So a node whose record is the stored one knows all of the
subscription, and a write that compares the record fails if another node has changed anything. The record also has the
paths of the links that were changed lately, so that a node which is a few revisions behind reads those alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec
from msgspec import Struct

from .model import State
from .records import VERSION, links_prefix, state_key

#: How many paths a record has. Each takes its own length.
_MAX_PATHS: Final = 16


class _Record(Struct, frozen=True, array_like=True):
    """
    The value of ``wakes/ID``. A storage that one node uses has the first two fields only.

    :ivar since: the revision after which all changes of links are in ``recent``.
    :ivar recent: the revisions that changed links, with the paths of these.
    """

    version: int
    state: msgspec.Raw
    revision: int = 0
    since: int = 0
    recent: tuple[tuple[int, tuple[str, ...]], ...] = ()


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Record).decode


def first_record(state: State, birth: int) -> bytes:
    """Return the record of a new subscription."""
    return _encode([VERSION, state, birth, birth, []])


def stamped(subscription_id: str, stored: bytes, puts: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    """
    Return the records of a change with the next revision.

    :param stored: the record ``wakes/ID`` that the change replaces.
    """
    before, key = _decode(stored), state_key(subscription_id)
    put = puts.get(key)
    state = before.state if put is None else _decode(put).state
    prefix = links_prefix(subscription_id)
    paths = tuple(each[len(prefix) :] for each in puts if each.startswith(prefix))
    revision, since, recent = before.revision + 1, before.since, before.recent
    if paths:
        recent = (*recent, (revision, paths))
    while recent and sum(len(changed) for _, changed in recent) > _MAX_PATHS:
        since, recent = recent[0][0], recent[1:]
    return {**puts, key: _encode(_Record(VERSION, state, revision, since, recent))}


def changed_paths(known: bytes, stored: bytes) -> Collection[str] | None:
    """
    Return the paths of the links that may have changed between two records of a subscription.

    :returns: None if that is not known: then all links are to be read.
    """
    before, after = _decode(known), _decode(stored)
    if not after.since <= before.revision <= after.revision:
        return None
    return {path for revision, paths in after.recent if revision > before.revision for path in paths}
