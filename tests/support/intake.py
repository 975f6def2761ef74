"""Owners of an intake that have no pages."""

from __future__ import annotations

from durable_streams.server.web.incoming import IncomingBody


class WithoutPages:
    """No page receives its body while it arrives."""

    def streams_body(self, method: bytes, target: bytes) -> bool:
        return False

    def body_begins(self, length: int | None, expects_continue: bool) -> IncomingBody:
        raise AssertionError("No page asked for the body.")

    def body_ended(self) -> None:
        raise AssertionError("No body began.")
