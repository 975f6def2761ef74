"""The rules by which a staged stream is installed under a name. See :meth:`.IStorage.install`."""

from __future__ import annotations

from typing import Protocol

from msgspec.structs import replace

from ..errors import (
    ContentTypeMismatch,
    InvalidRequest,
    PathBlocked,
    ReplacementHasForks,
    StreamExists,
)
from ..model import MAX_INCARNATION, StreamFacts, StreamRestoration
from ..protocol.content import media_type
from ..protocol.names import RESERVED_PREFIX


class StoredStream(Protocol):
    """The state of a stream that an installation depends on."""

    @property
    def facts(self) -> StreamFacts: ...

    @property
    def created_at(self) -> float: ...

    @property
    def updated_at(self) -> float: ...

    @property
    def deleted(self) -> bool: ...

    @property
    def forks(self) -> int: ...


def check_names(staged: str, name: str) -> None:
    """
    Check that the one name is reserved, and the other is not.

    :raises InvalidRequest: they cannot be used.
    """
    if not staged.startswith(RESERVED_PREFIX):
        raise InvalidRequest(f"The name of a staged stream must begin with {RESERVED_PREFIX}, unlike {staged}.")
    if name.startswith(RESERVED_PREFIX):
        raise InvalidRequest(f"A stream cannot be installed as {name}: names in {RESERVED_PREFIX} are reserved.")


def check_replacement(name: str, existing: StoredStream | None, allowed: bool) -> None:
    """
    Check that a name is free, or that its stream can be replaced.

    :param allowed: whether an existing stream is to be replaced.
    :raises StreamsError: neither is the case.
    """
    if existing is None:
        return
    if existing.deleted:
        raise PathBlocked(name)
    if not allowed:
        raise StreamExists(name, "content")
    if existing.forks:
        raise ReplacementHasForks(name)


def complete(stream: StoredStream, wanted: StreamRestoration, max_writers: int, now: float) -> StreamRestoration:
    """
    Return the whole state of the installed stream.

    :param now: by the wall clock.
    :raises InvalidRequest: the incarnation cannot be used, or the content type is malformed.
    :raises ContentTypeMismatch: the configuration has another content type than the stream.
    """
    facts = stream.facts
    incarnation = facts.incarnation if wanted.incarnation is None else wanted.incarnation
    if not 0 < incarnation <= MAX_INCARNATION:
        raise InvalidRequest(f"The incarnation {incarnation} is not one of a stream: from 1 to {MAX_INCARNATION}.")
    content_type = wanted.config.content_type
    if content_type is not None and media_type(content_type) != facts.media_type:
        raise ContentTypeMismatch(facts.name, facts.media_type, media_type(content_type))
    by_time = sorted(wanted.writers.items(), key=lambda item: item[1].seen)
    return replace(
        wanted,
        writers=dict(by_time[-max_writers:] if max_writers else []),
        created_at=stream.created_at if wanted.created_at is None else wanted.created_at,
        updated_at=stream.updated_at if wanted.updated_at is None else wanted.updated_at,
        used_at=now if wanted.used_at is None else min(wanted.used_at, now),
        incarnation=incarnation,
    )
