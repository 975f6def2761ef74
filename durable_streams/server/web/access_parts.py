"""The decision of the gate about a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ..identity.principal import ANONYMOUS, Principal

if TYPE_CHECKING:
    from ..identity.policy import Decision


class Access(Struct, frozen=True):
    """
    The gate's decision about a request. The requests of a principal for the same share one.

    :ivar principal: who sends the request.
    :ivar operations: what the request needs on the stream.
    :ivar name: the name of the stream; empty if the path is no name.
    :ivar source: the source of a fork; None for any other request.
    :ivar allowed: whether the request is allowed.
    :ivar operation: the operation that decided: the one that is denied, or else the first.
    :ivar decision: the decision about it; None for a request that needs no operation.
    :ivar public: whether shared caches may keep what a read returns.
    """

    principal: Principal
    operations: tuple[str, ...]
    name: str
    source: str | None
    allowed: bool
    operation: str
    decision: Decision | None
    public: bool = False


#: The decision about requests that need no operation, and are not authenticated: preflights, and unknown methods.
PUBLIC: Final = Access(ANONYMOUS, (), "", None, True, "", None)

#: The decision about every request on a server without access control.
OPEN: Final = Access(ANONYMOUS, (), "", None, True, "", None, True)
