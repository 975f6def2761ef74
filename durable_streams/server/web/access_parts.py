"""Identities and rules as the gate uses them, and the decision that it notes on each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from ..interfaces import NowOrLater


class Principal(Protocol):
    """Who sends a request, as far as the gate reads it."""

    @property
    def subject(self) -> str:
        """The name of the principal; empty for anonymous requests."""

    @property
    def kind(self) -> str:
        """The kind of its credential, such as ``token``; ``anonymous`` without one."""

    @property
    def expires_at(self) -> float | None:
        """When it expires, in UNIX seconds; None for never."""


class Decision(Protocol):
    """The decision of the rules about one operation on one name."""

    @property
    def allowed(self) -> bool:
        """Whether the operation is allowed."""

    @property
    def rule(self) -> str | None:
        """The rule that decided; None if none matched."""

    @property
    def public(self) -> bool:
        """Whether shared caches may keep the answer for everybody."""


class Presented(Struct, frozen=True, gc=False):
    """
    The credentials that a request presents.

    :ivar authorization: the value of Authorization.
    :ivar query: what follows the question mark.
    :ivar method: in upper case.
    :ivar name: the path below the base path, percent-encoded.
    :ivar certificate: what is read of the client's certificate.
    :ivar proxy_identity: the client's identity, as a trusted proxy names it.
    :ivar address: the client's.
    """

    authorization: bytes | None
    query: bytes
    method: bytes
    name: bytes
    certificate: object | None
    proxy_identity: str | None
    address: str


class Authentication(Protocol):
    """Makes principals of presented credentials."""

    def principal_of(self, presented: Presented) -> NowOrLater[Principal]:
        """
        Return the principal.

        :raises NotAuthenticated: the credentials are invalid, or there are none and anonymous requests are refused.
        :raises Unavailable: they cannot be checked now.
        """

    def cached(self, authorization: bytes | None) -> Principal | None:
        """Return the principal of an Authorization header that was checked before; None if it must be checked."""

    def is_current(self, principal: Principal, now: float) -> bool:
        """Return whether a principal has neither expired nor been revoked."""


class Policy(Protocol):
    """The rules."""

    def decide(self, principal: Principal, operation: str, name: str) -> Decision:
        """Decide whether a principal may do an operation on a name."""


class AccessControl(Protocol):
    """Authentication and rules as they are now."""

    @property
    def authentication(self) -> Authentication:
        """The authentication of requests."""

    @property
    def policy(self) -> Policy:
        """The rules."""

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change of tokens, keys or rules."""


class Access(Struct, frozen=True, gc=False):
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
