"""Answers to requests that the rules deny."""

from __future__ import annotations

from typing import Final

from ..errors import NotAllowed
from ..identity.challenges import bearer_challenge
from ..identity.control import AccessControl
from ..identity.principal import NOBODY, Principal
from ..interfaces import NowOrLater
from .access_parts import Access
from .answers import Answer, Answers, Perform
from .needed_operations import ON_SOURCE
from .requests import READS, StreamRequest

#: The operations of requests that are answered as if the stream did not exist, if it may not be read.
_HIDING: Final = READS | {"append", "head", "delete"}

#: The kinds of principals that have sent a Bearer token.
_BEARERS: Final = frozenset(["token", "jwt"])


class Refusals:
    """
    Answers requests that the rules deny.

    :param answers: renders errors.
    :param without_streams: performs a request as if no stream existed.
    :ivar hide_forbidden: whether a stream that may not be read is answered as one that does not exist.
    """

    def __init__(self, answers: Answers, without_streams: Perform, hide_forbidden: bool = False) -> None:
        self.answers = answers
        self._without_streams = without_streams
        self.hide_forbidden = hide_forbidden

    def deny(self, access: Access, request: StreamRequest, control: AccessControl) -> NowOrLater[Answer]:
        """
        Answer a request that is denied.

        Anonymous requests are asked for credentials, whether the stream is hidden or not.
        """
        principal = access.principal
        if principal.kind == NOBODY:
            return self.answers.error(request, control.authentication.missing())
        if self.hides(access, request, control):
            return self._without_streams(request)
        return self.answers.error(request, _not_allowed(access))

    def hides(self, access: Access, request: StreamRequest, control: AccessControl) -> bool:
        """Return whether a request that is denied is answered as if the stream did not exist."""
        if not self.hide_forbidden or request.operation not in _HIDING or access.principal.kind == NOBODY:
            return False
        return not control.policy.decide(access.principal, "read", access.name).allowed


def _not_allowed(access: Access) -> NotAllowed:
    """Return why a request is denied, and what to change."""
    where = "the stream that it forks" if access.operation in ON_SOURCE and access.source is not None else "this stream"
    return not_allowed(access.principal, access.operation, f"on {where}")


def not_allowed(principal: Principal, operation: str, where: str = "") -> NotAllowed:
    """
    Return the error of a request whose principal is not allowed an operation.

    :param where: the place of the operation, after a preposition; empty if it has none.
    """
    reason = f"The rules do not allow {operation} {where}".rstrip() + "."
    advice = "Use other credentials, or ask the operator for a rule that allows it."
    is_bearer = principal.kind in _BEARERS
    challenge = bearer_challenge("insufficient_scope", reason) if is_bearer else None
    return NotAllowed(f"{reason} {advice}", challenge)
