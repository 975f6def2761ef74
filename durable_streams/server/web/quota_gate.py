"""The gate of a server without access control, but with quotas."""

from __future__ import annotations

from ..errors import RateLimited
from ..interfaces import NowOrLater
from .access_parts import OPEN
from .answers import Answer, Answers, Perform
from .quotas import RequestQuotas
from .requests import StreamRequest


class QuotaGate:
    """
    The gate of a server without access control: it applies quotas, and allows every request.

    It takes the place of :class:`.access.Gate`.
    """

    def __init__(self, quotas: RequestQuotas, answers: Answers) -> None:
        self.quotas = quotas
        self._answers = answers

    def admits(self, request: StreamRequest) -> bool:
        """Return False: each request is counted, by :meth:`perform`."""
        return False

    def perform(self, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """Perform a request, or refuse it."""
        try:
            request.access = OPEN
            return self.quotas.perform_for_anybody(request, perform)
        except RateLimited as error:
            return self._answers.error(request, error)

    def limit(self, quotas: RequestQuotas) -> None:
        """Apply other quotas to requests from now on."""
        self.quotas = quotas

    def permit(self, request: StreamRequest) -> None:
        """Return None: reads need no permit without access control."""

    def early(self, request: StreamRequest, has_body: bool) -> Answer | None:
        """Return the refusal of a request whose body has not arrived; None if it cannot be refused now."""
        try:
            self.quotas.check(request, has_body)
            self.quotas.check_principal(request, "", has_body)
        except RateLimited as error:
            return self._answers.error(request, error)
        return None
