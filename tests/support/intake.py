"""Owners of an intake that have no pages, and no gate."""

from __future__ import annotations

from durable_streams.server.web.incoming import IncomingBody
from durable_streams.server.web.requests import StreamRequest


class WithoutPages:
    """No page receives its body while it arrives."""

    def streams_body(self, method: bytes, target: bytes) -> bool:
        return False

    def body_begins(self, length: int | None, expects_continue: bool) -> IncomingBody:
        raise AssertionError("No page asked for the body.")

    def refused_early(self, request: StreamRequest, has_body: bool) -> bool:
        return False

    def body_ended(self) -> None:
        raise AssertionError("No body began.")
