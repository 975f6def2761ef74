"""The connections of a node to the database, counted for metrics."""

from __future__ import annotations

from .connection import Connection


class OpenConnections:
    """
    The connections that were opened.

    :param expected: the number of connections that a node keeps open.
    """

    def __init__(self, expected: int) -> None:
        self._expected = expected
        self._opened = 0
        self._connections: list[Connection] = []

    def add(self, connection: Connection) -> Connection:
        """Count a connection that was opened, and return it."""
        self._opened += 1
        self._connections = [each for each in self._connections if each.is_open]
        self._connections.append(connection)
        return connection

    @property
    def count(self) -> int:
        """The number of open connections."""
        return sum(each.is_open for each in self._connections)

    @property
    def reopened(self) -> int:
        """How many connections were opened in the place of lost ones."""
        return max(0, self._opened - self._expected)
