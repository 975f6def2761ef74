"""The stored form of subscriptions: keys and values of a storage's small records.

====================  =======================  ===================================================
key                   value                    is written
====================  =======================  ===================================================
subscriptions/ID      :class:`.Subscription`   once
wakes/ID              :class:`.State`          for each wake, ack, attempt, claim and change of links
snapshots/ID          :class:`.Snapshot`       for each wake of a webhook, for each claim
links/ID/PATH         :class:`.Link`, birth    for each link, and each ack that moves it
====================  =======================  ===================================================

A value is MessagePack: an array of the format's version and the fields. An id has no slash, so keys are unambiguous.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from .errors import CorruptRecord
from .model import Link, Snapshot, State, Subscription

SUBSCRIPTIONS: Final = "subscriptions/"
WAKES: Final = "wakes/"
SNAPSHOTS: Final = "snapshots/"
LINKS: Final = "links/"

#: What the keys of the secrets begin with (:mod:`.kept_secrets`).
SECRETS: Final = "secrets/"

#: The version of the stored form, the order of fields in :mod:`.model`. A record of another version ends the start.
VERSION: Final = 1

_T = TypeVar("_T", Subscription, State, Snapshot)


class _LinkRecord(Struct, frozen=True, array_like=True, gc=False):
    version: int
    birth: int
    explicit: bool
    stream_id: int | None
    incarnation: int
    position: int


class _Versioned(Struct, frozen=True, array_like=True):
    version: int
    value: msgspec.Raw


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_versioned: Final = msgspec.msgpack.Decoder(_Versioned).decode
_decode_link: Final = msgspec.msgpack.Decoder(_LinkRecord).decode


def subscription_key(subscription_id: str) -> str:
    """Return the key of a subscription's configuration."""
    return SUBSCRIPTIONS + subscription_id


def state_key(subscription_id: str) -> str:
    """Return the key of a subscription's state."""
    return WAKES + subscription_id


def snapshot_key(subscription_id: str) -> str:
    """Return the key of the snapshot of a subscription's wake."""
    return SNAPSHOTS + subscription_id


def links_prefix(subscription_id: str) -> str:
    """Return what the keys of a subscription's links begin with."""
    return f"{LINKS}{subscription_id}/"


def link_key(subscription_id: str, path: str) -> str:
    """Return the key of a link."""
    return f"{LINKS}{subscription_id}/{path}"


def split_link_key(key: str) -> tuple[str, str]:
    """
    Return the subscription's id and the path in the key of a link.

    :raises CorruptRecord: it is no such key.
    """
    subscription_id, slash, path = key.removeprefix(LINKS).partition("/")
    if not key.startswith(LINKS) or not slash or not path or not subscription_id:
        raise CorruptRecord(key, "the key is malformed")
    return subscription_id, path


def encode(value: Subscription | State | Snapshot) -> bytes:
    """Encode the value of ``subscriptions/ID``, ``wakes/ID`` or ``snapshots/ID``."""
    return _encode([VERSION, value])


def decode(key: str, value: bytes, kind: type[_T]) -> _T:
    """
    Decode the value of ``subscriptions/ID``, ``wakes/ID`` or ``snapshots/ID``.

    :param kind: :class:`.Subscription`, :class:`.State` or :class:`.Snapshot`.
    :raises CorruptRecord: it is damaged, or of another version.
    """
    try:
        versioned = _decode_versioned(value)
        if versioned.version != VERSION:
            raise CorruptRecord(key, _wrong_version(versioned.version))
        return msgspec.msgpack.decode(versioned.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(key, _version_error(value) or str(error)) from None


def encode_link(link: Link, birth: int) -> bytes:
    """Encode the value of ``links/ID/PATH``; ``birth`` is that of the subscription."""
    return _encode(_LinkRecord(VERSION, birth, link.explicit, link.stream_id, link.incarnation, link.position))


def decode_link(key: str, value: bytes) -> tuple[Link, int]:
    """
    Decode the value of ``links/ID/PATH`` into the link and the birth of its subscription.

    :raises CorruptRecord: it is damaged, or of another version.
    """
    try:
        record = _decode_link(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptRecord(key, _version_error(value) or str(error)) from None
    if record.version != VERSION:
        raise CorruptRecord(key, _wrong_version(record.version))
    return Link(record.explicit, record.stream_id, record.incarnation, record.position), record.birth


def _version_error(value: bytes) -> str | None:
    """Return the error of a value of another version, or None."""
    try:
        fields = msgspec.msgpack.decode(value, type=list[msgspec.Raw])
        version = msgspec.msgpack.decode(fields[0], type=int)
    except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
        return None
    return None if version == VERSION else _wrong_version(version)


def _wrong_version(version: int) -> str:
    return f"it has version {version}, and this server reads version {VERSION}"
