"""Cross-origin writes: the check of a write's origin against the allowed ones.

A browser sends a plain POST of a page without asking first (a preflight), and CORS headers only decide who reads the
answer. So where ``http.cors_origins`` is a list, the server itself refuses writes of pages that are not on it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from .callers import Caller
from .problems import OriginNotAllowed
from .requests import StreamRequest

#: Kinds of principals whose credentials are a client certificate, or a session that a proxy knows by a cookie.
_ATTACHED: Final = frozenset(["certificate", "header"])

#: An origin of HTTP: its scheme, and its host with the port where that is not the scheme's own.
_ORIGIN: Final = re.compile(rb"(?:(http)://([^/?#@]+?)(?::(?:80)?)?|(https)://([^/?#@]+?)(?::(?:443)?)?)")


class WritingOrigins:
    """
    The origins whose pages may write.

    :param origins: as ``http.cors_origins``; with ``*`` among them every page may write.
    :ivar any: whether every page may write.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        self.any = "*" in origins
        self._allowed = frozenset(origin.encode() for origin in origins)

    def check(self, request: StreamRequest) -> None:
        """
        Check that a write comes from no page of an origin that is neither listed nor the server's own.

        A request without Origin is no page's, and passes. If every page may write, a page may still not do so with
        credentials that browsers attach by themselves: it need not know of them (cross-site request forgery).

        :raises OriginNotAllowed: the page may not write.
        """
        origin = request.headers.get(b"origin")
        if origin is None or origin in self._allowed or (self.any and not _is_attached(request)):
            return
        if not is_own_origin(origin, request.caller, request.headers.get(b"host")):
            raise OriginNotAllowed(
                "A page of this origin may not change streams. Add its origin to http.cors_origins if it should."
            )


def _is_attached(request: StreamRequest) -> bool:
    """Return whether a browser attaches the credentials of a request by itself, for the pages of any origin."""
    access = request.access
    if access is None:
        return False
    return access.principal.kind in _ATTACHED or request.headers.get(b"authorization", b"")[:5].lower() == b"basic"


def is_own_origin(origin: bytes, caller: Caller, host: bytes | None) -> bool:
    """
    Return whether an origin is the server's own: what the client has for Host, or what a trusted proxy says of it.

    ``https`` is taken for the server's own too where the connection is plain: a proxy in front that is not trusted may
    have ended TLS.
    """
    own = caller.origin(host)
    if origin.lower().startswith(b"https:") and own.startswith(b"http:"):
        own = b"https:" + own.removeprefix(b"http:")
    page = _parts(origin)
    return page is not None and page == _parts(own)


def _parts(origin: bytes) -> tuple[bytes, bytes] | None:
    """Return the scheme of an origin and its host, with a port unless it is the default; None if it is not HTTP's."""
    match = _ORIGIN.fullmatch(origin.lower())
    return None if match is None else (match[1] or match[3], match[2] or match[4])
