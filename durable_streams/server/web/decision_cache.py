"""The decisions of the gate about appends and reads, by principal and path."""

from __future__ import annotations

from typing import Final

from ..identity.principal import Principal
from .access_parts import Access
from .requests import READS, StreamRequest

#: How many decisions and principals are remembered, and the length of the longest path, in bytes.
_REMEMBERED: Final = 32_768
_PATH_BYTES: Final = 256


class PrincipalDecisions:
    """
    The decisions about the requests of a principal, by their paths.

    :ivar appends: about appends of data that do not close the stream.
    :ivar reads: about reads of all modes.
    """

    __slots__ = ("appends", "reads")

    def __init__(self) -> None:
        self.appends: dict[bytes, Access] = {}
        self.reads: dict[bytes, Access] = {}

    def table(self, request: StreamRequest) -> dict[bytes, Access] | None:
        """Return the decisions about requests like this; None if they are not remembered."""
        operation = request.operation
        if operation == "append":
            return self.appends if request.body and b"stream-closed" not in request.headers else None
        return self.reads if operation in READS else None


class DecisionCache:
    """
    A bounded cache of decisions, which is emptied when it is full.

    :ivar principals: the decisions by principals; it stays the same object.
    """

    def __init__(self) -> None:
        self.principals: dict[Principal | None, PrincipalDecisions] = {}
        self._count = 0

    def find(self, principal: Principal, request: StreamRequest) -> Access | None:
        """Return the decision about the same request of a principal; None if there is none."""
        decisions = self.principals.get(principal)
        table = None if decisions is None else decisions.table(request)
        return None if table is None else table.get(request.path)

    def add(self, principal: Principal, request: StreamRequest, access: Access) -> None:
        """Add the decision about a request, if decisions about requests like it are remembered."""
        if len(request.path) > _PATH_BYTES:
            return
        if self._count >= _REMEMBERED:
            self.clear()
        decisions = self.principals.get(principal)
        if decisions is None:
            decisions = self.principals[principal] = PrincipalDecisions()
            self._count += 1
        table = decisions.table(request)
        if table is not None:
            table[request.path] = access
            self._count += 1

    def forget(self, principal: Principal) -> None:
        """Forget the decisions about a principal, which keep it and its claims in memory."""
        decisions = self.principals.pop(principal, None)
        if decisions is not None:
            self._count -= 1 + len(decisions.appends) + len(decisions.reads)

    def clear(self) -> None:
        """Forget all decisions: tokens, keys or rules have changed."""
        self.principals.clear()
        self._count = 0
