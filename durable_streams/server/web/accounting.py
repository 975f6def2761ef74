"""Quotas and the audit log, as the gate calls them."""

from __future__ import annotations

from typing import Protocol

from .access_parts import Access
from .requests import StreamRequest


class Quotas(Protocol):
    """Limits how much addresses and principals may do. Each method may raise an error that refuses the request."""

    def arrived(self, address: str) -> None:
        """Count a request of an address, before it is authenticated."""

    def not_authenticated(self, address: str) -> None:
        """Count a request whose credentials are invalid."""

    def spend(self, request: StreamRequest, access: Access) -> None:
        """Count an allowed request of a principal, before it is performed."""

    def sent(self, request: StreamRequest, size: int) -> None:
        """Count the bytes of an answer's body. ``request.access`` is None if it was not authenticated."""


class AuditEntry(Protocol):
    """A request that the audit log records when its answer is known."""

    def answered(self, status: int) -> None:
        """Write the record."""


class Audit(Protocol):
    """The audit log."""

    def decided(self, request: StreamRequest, access: Access) -> AuditEntry | None:
        """Return the entry for a decision, or None if it is not recorded."""

    def not_authenticated(self, request: StreamRequest, reason: str) -> AuditEntry | None:
        """Return the entry for a request whose credentials are missing or invalid, or None if it is not recorded."""
