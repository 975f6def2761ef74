"""Answers to requests that the rules deny."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

from ..errors import NotAllowed, NotAuthenticated
from ..interfaces import NowOrLater
from .access_parts import Access, Policy, Principal
from .answers import Answer, Answers
from .needed_operations import ON_SOURCE
from .requests import StreamRequest

#: The operations of requests that are answered as if the stream did not exist, if it may not be read.
_HIDING: Final = frozenset(["append", "read", "poll", "subscribe", "head", "delete"])

#: The challenge of an answer to a request without credentials.
CHALLENGE: Final = 'Bearer realm="durable-streams"'

#: Performs a request.
Perform: TypeAlias = "Callable[[StreamRequest], NowOrLater[Answer]]"


class Refusals:
    """
    Answers requests that the rules deny.

    :param answers: renders errors.
    :param without_streams: performs a request as if no stream existed.
    :param hide_forbidden: whether a stream that may not be read is answered as one that does not exist.
    """

    def __init__(self, answers: Answers, without_streams: Perform, hide_forbidden: bool = False) -> None:
        self.answers = answers
        self._without_streams = without_streams
        self._hide_forbidden = hide_forbidden

    def deny(self, access: Access, request: StreamRequest, policy: Policy) -> NowOrLater[Answer]:
        """
        Answer a request that is denied.

        Anonymous requests are asked for credentials, whether the stream is hidden or not.
        """
        principal = access.principal
        if principal.kind == "anonymous":
            error = NotAuthenticated("This needs credentials. Send a token as Authorization: Bearer.", CHALLENGE)
            return self.answers.error(request, error)
        if self._hides(access, request, policy):
            return self._without_streams(request)
        return self.answers.error(request, NotAllowed(_sentence(access), _insufficient(principal)))

    def _hides(self, access: Access, request: StreamRequest, policy: Policy) -> bool:
        if not self._hide_forbidden or request.operation not in _HIDING:
            return False
        return not policy.decide(access.principal, "read", access.name).allowed


def _sentence(access: Access) -> str:
    """Return why a request is denied, and what to change."""
    where = "the stream that it forks" if access.operation in ON_SOURCE and access.source is not None else "this stream"
    return (
        f"The rules do not allow {access.operation} on {where}. "
        "Use other credentials, or ask the operator for a rule that allows it."
    )


def _insufficient(principal: Principal) -> str | None:
    """Return the challenge of a refusal (RFC 6750 section 3.1); None if the principal has not sent a Bearer token."""
    if principal.kind not in ("token", "jwt"):
        return None
    return f'{CHALLENGE}, error="insufficient_scope", error_description="The rules do not allow it."'
