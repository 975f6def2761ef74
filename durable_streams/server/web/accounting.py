"""The audit log, as the gate calls it."""

from __future__ import annotations

from typing import Protocol

from .access_parts import Access
from .requests import StreamRequest


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
