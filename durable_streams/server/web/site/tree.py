"""Streams and pages as one resource, for a twisted.web Site."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.web.server import Request

from ..operations import Operations
from ..wire import below, is_stream
from .app import Pages
from .leaf import Leaf
from .pages_resource import PagesResource
from .resource import StreamsResource


class Tree(Leaf):
    """
    The root resource of a server: streams below the base path, pages at all other paths.

    A stream's name is made of the path as it was sent, which routing by decoded segments would not preserve.
    """

    def __init__(
        self,
        streams: StreamsResource,
        pages: Pages,
        operations: Operations,
        base_path: str,
        clock: IReactorTime,
        stall_timeout: float = 60,
    ) -> None:
        self._streams = streams
        self._base = below(base_path)
        self.pages = PagesResource(pages, operations, self._base, clock, stall_timeout)

    def render(self, request: Request) -> int:
        if not is_stream(request.path, self._base):
            return self.pages.render_page(request, b"", request.uri)
        mounted = self._base.count(b"/") - 1
        segments = request.postpath or []
        request.prepath, request.postpath = segments[:mounted], segments[mounted:]
        return self._streams.render(request)
