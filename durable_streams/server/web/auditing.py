"""The audit log, as the gate calls it."""

from __future__ import annotations

from typing import Protocol

from .access_parts import Access
from .answers import Answer
from .pages import PageRequest
from .requests import StreamRequest


class PendingRecord(Protocol):
    """A request that the audit log records when its answer is known."""

    def answered(self, answer: Answer) -> Answer:
        """
        Write the record.

        :returns: the answer to send: its body, if it is streamed, has its end recorded, too.
        """

    def failed(self) -> None:
        """Write the record of a request that has no answer, because its client has gone."""


class Audit(Protocol):
    """The audit log."""

    @property
    def records_allowed(self) -> bool:
        """Whether allowed requests may be recorded: False if :meth:`decided` returns None for all of them."""

    def decided(self, request: StreamRequest | PageRequest, access: Access) -> PendingRecord | None:
        """Return the entry for a decision, or None if it is not recorded."""

    def not_authenticated(self, request: StreamRequest | PageRequest, reason: str) -> PendingRecord | None:
        """Return the entry for a request whose credentials are missing or invalid, or None if it is not recorded."""
