"""Nodes with a planted bug, which histories must catch: ``python -m tests.histories.planted BUG TWISTD-OPTIONS``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from random import shuffle
from typing import Any, Final

from twisted.internet.task import deferLater
from twisted.scripts.twistd import run

from durable_streams.server.storage.postgres import append_queue, commit_statement, fence, locking_lane, neighbours
from durable_streams.server.storage.postgres.heads import Head


def _replace_in_statements(old: str, new: str) -> None:
    for name in ("_STREAMS", "_LOCK"):
        text: str = getattr(commit_statement, name)
        if old in text:
            setattr(commit_statement, name, text.replace(old, new))
            return
    raise AssertionError(f"there is no {old!r} in the statements")


def no_version_check() -> None:
    """Write a decision whatever the stream's version is."""
    _replace_in_statements("WHERE s.version = u.version AND NOT s.deleted", "WHERE NOT s.deleted")
    _replace_in_statements("    WHERE s.version = excluded.version\n", "")


def stale_refusals() -> None:
    """Refuse appends by cached heads, without a look-up."""
    decide = append_queue.AppendQueues.decide

    def patched(self: Any, queue: Any, max_bytes: int) -> Any:
        known = queue.known or self._lookups.known(queue.name)
        if known is not None:
            known.confirmed = 2**62
        return decide(self, queue, max_bytes)

    append_queue.AppendQueues.decide = patched  # type: ignore[method-assign]


def early_messages() -> None:
    """Tell other nodes of a commit some time before it is one, and not after it."""
    decision = append_queue.AppendQueues.decision
    changed = neighbours.Neighbours.changed

    def patched(self: Any, queue: Any, known: Any, folded: Any) -> Any:
        head: Head = folded.head
        self.changed(head.facts.id, head.version + 1)
        return decision(self, queue, known, folded)

    def silent(self: Any, stream_id: int, version: int) -> None:
        if sys._getframe(1).f_code.co_name == "patched":
            changed(self, stream_id, version)

    def late(self: Any, statement: Any, params: Any) -> Any:
        from twisted.internet import reactor  # noqa: PLC0415 (the program chooses one before)

        return deferLater(reactor, 0.03, commit, self, statement, params)

    commit = fence.WriterConnection.commit
    fence.WriterConnection.commit = late  # type: ignore[method-assign]
    append_queue.AppendQueues.decision = patched  # type: ignore[method-assign]
    neighbours.Neighbours.changed = silent  # type: ignore[method-assign]


def locks_in_any_order() -> None:
    """Lock the streams of a commit in a random order, and wait for those that others have locked."""

    def shuffled(values: Iterable[Any], key: object = None) -> list[Any]:
        found = list(values)
        shuffle(found)
        return found

    commit_statement.sorted = locking_lane.sorted = shuffled  # type: ignore[attr-defined]
    _replace_in_statements("FOR NO KEY UPDATE SKIP LOCKED", "FOR NO KEY UPDATE")


#: The bugs by name.
BUGS: Final[dict[str, Callable[[], None]]] = {
    "no-version-check": no_version_check,
    "stale-refusals": stale_refusals,
    "early-messages": early_messages,
    "locks-in-any-order": locks_in_any_order,
}


def planted(bug: str) -> tuple[str, ...]:
    """Return the command of a node with a bug."""
    return (sys.executable, "-m", "tests.histories.planted", bug, "-n", "--pidfile=", "durable-streams")


if __name__ == "__main__":
    BUGS[sys.argv[1]]()
    sys.argv = ["twistd", *sys.argv[2:]]
    run()
