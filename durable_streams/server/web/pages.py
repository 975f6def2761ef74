"""Requests for pages, which are all paths that are not streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from twisted.web.http import parse_qs

from .callers import NOBODY, Caller
from .incoming import IncomingBody
from .redaction import redacted_query

_Page = TypeVar("_Page", bound=Callable[..., Any])


class PageRequest:
    """
    A request for a page.

    :ivar method: in upper case.
    :ivar path: percent-encoded, without the query. The pages are routed by it.
    :ivar mount: the path above the pages; empty if there is none.
    :ivar query: what follows the question mark.
    :ivar fields: all headers that its sender may send, as they were sent.
    :ivar caller: who sent it.
    :ivar number: the number of the request in this process.
    :ivar version: of HTTP.
    :ivar body: the body; empty if the page streams it.
    :ivar incoming: the body, if the page streams it (:func:`streams_body`); otherwise None.
    :ivar forwarded: whether forwarding headers were removed, since the peer is not a trusted proxy.
    """

    __slots__ = (
        "body",
        "caller",
        "fields",
        "forwarded",
        "incoming",
        "method",
        "mount",
        "number",
        "path",
        "query",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | IncomingBody = b"",
        caller: Caller = NOBODY,
        number: int = 0,
        version: str = "1.1",
        forwarded: bool = False,
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.fields = fields
        self.body = body if isinstance(body, bytes) else b""
        self.incoming = None if isinstance(body, bytes) else body
        self.caller = caller
        self.number = number
        self.version = version
        self.mount = b""
        self.forwarded = forwarded

    @property
    def target(self) -> bytes:
        """The path and the query as they were sent, without the signature of a signed URL."""
        path = self.mount + self.path
        return path + b"?" + redacted_query(self.query) if self.query else path

    def header(self, name: bytes) -> bytes | None:
        """
        Return the first header of a name.

        :param name: in lower case.
        """
        return next((value for key, value in self.fields if key.lower() == name), None)

    def arguments(self) -> dict[bytes, list[bytes]]:
        """Return the decoded parameters of the query."""
        arguments: dict[bytes, list[bytes]] = parse_qs(self.query, True)
        return arguments


def streams_body(page: _Page) -> _Page:
    """
    Mark a page that receives its request's body as :attr:`PageRequest.incoming` while it arrives.

    ``limits.max_request_body_bytes`` does not apply to it. Put this decorator below ``@app.route``::

        @app.route("/admin/import", methods=["POST"])
        @streams_body
        async def receive(request: PageRequest) -> Answer:
            await request.incoming.startProducing(consumer)
            return Answer(204, b"")
    """
    page.streams_body = True  # type: ignore[attr-defined]
    return page


def public_page(page: _Page) -> _Page:
    """
    Mark a page that needs no credentials, where requests are authenticated. Put this decorator below ``@app.route``.

    A page without it needs the right ``admin`` there.
    """
    page.public_page = True  # type: ignore[attr-defined]
    return page
