"""Builds a change set: which rows change when streams are removed, forked or installed together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf

from .changesets import ChangeSet, Installation, NewStream, Reference, Removal
from .heads import Head


class HeadOutdated(Exception):
    """A stream that another one refers to is gone, so what was read is out of date. Look up again."""


class ChangeBuilder:
    """
    Collects changes of several streams, each as it was read, for one change set.

    :param find: returns the head of a stream by its id, or None; expired and deleted ones, too.
    :param until: the database's time from which on the changes must not be written.
    :ivar removed: the streams that are removed, by id.
    """

    def __init__(self, find: Callable[[int], Awaitable[Head | None]], until: float = inf) -> None:
        self._find = find
        self._references: dict[int, Reference] = {}
        self.removed: dict[int, Removal] = {}
        self.until = until

    async def remove(self, head: Head, exact: bool = False) -> None:
        """
        Remove a stream, or hide it while it has forks; and each hidden source whose last fork this was.

        :param exact: whether no other change of the stream may have been made since it was read, such as an append.
        :raises HeadOutdated: a source is gone.
        """
        forks = self.forks(head)
        if forks:
            self._references[head.facts.id] = Reference(head, forks, True, exact)
            return
        while True:
            self._references.pop(head.facts.id, None)
            self.removed[head.facts.id] = Removal(head, exact)
            if head.source_id is None:
                return
            source = await self._find(head.source_id)
            if source is None:
                raise HeadOutdated
            if self.forks(source) > 1 or not source.deleted:
                self._add_forks(source, -1)
                return
            head, exact = source, False

    def forks(self, head: Head) -> int:
        """Return the number of a stream's forks after the changes so far."""
        reference = self._references.get(head.facts.id)
        return head.forks if reference is None else reference.forks

    def add_fork(self, source: Head) -> None:
        """Count another fork of a stream that is not removed."""
        self._add_forks(source, 1)

    def _add_forks(self, head: Head, count: int) -> None:
        found = self._references.get(head.facts.id, Reference(head, head.forks, head.deleted))
        self._references[head.facts.id] = Reference(found.head, found.forks + count, found.deleted, found.exact)

    def build(self, insertion: NewStream | None = None, installed: Installation | None = None) -> ChangeSet:
        """
        Return all changes.

        :param insertion: a stream that is created with them.
        :param installed: the installation of a staged stream, with its :meth:`forks`.
        """
        if installed is not None:
            self._references.pop(installed.head.facts.id, None)
        return ChangeSet(
            tuple(self._references.values()), tuple(self.removed.values()), installed, insertion, self.until
        )
