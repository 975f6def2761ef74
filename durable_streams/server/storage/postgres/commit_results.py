"""What a commit returns: the result of its statement, or as much as is known after a lost connection, or an error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from twisted.internet.defer import Deferred

from ...errors import Unavailable
from .queries import Result, Statement


class NothingWritten(Unavailable):
    """The database could not be reached for a write, and it is certain that nothing was written."""


class CommitResult(Result, Protocol):
    """What a statement has returned: a PGresult, or :class:`LandedResult`."""

    @property
    def ntuples(self) -> int: ...

    @property
    def nfields(self) -> int: ...


class CommitConnection(Protocol):
    """A connection for statements that write."""

    def commit(self, statement: Statement, params: Sequence[bytes | None]) -> Deferred[CommitResult]:
        """Execute a statement; see :meth:`.WriterConnection.commit`."""


class LandedResult(Struct, frozen=True, gc=False):
    """
    The result of a commit whose answer was lost: one row with the first two columns.

    :ivar time: the database's time, of the fence.
    :ivar written: as the statement has put it into the node's row.
    """

    time: bytes
    written: bytes | None
    ntuples: int = 1
    nfields: int = 2

    def get_value(self, row_number: int, column_number: int) -> bytes | None:
        """Return a value in binary form."""
        assert row_number == 0
        return (self.time, self.written)[column_number]


class CommitOutcomes:
    """
    How uncertain commits were decided, for metrics.

    :ivar landed: they were written.
    :ivar repeated: they were not written, and were sent again.
    :ivar refused: they were not written, and failed.
    :ivar unknown: they failed before they were decided.
    """

    def __init__(self) -> None:
        self.landed = 0
        self.repeated = 0
        self.refused = 0
        self.unknown = 0
