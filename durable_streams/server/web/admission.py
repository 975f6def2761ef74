"""Admission of requests: the rules by which the head and the body of a request are read or refused."""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from .proxies import Proxies, Reading
from .requests import StreamRequest
from .site.tree import PageRequest

#: A request for a stream, or for anything else that is served.
AdmittedRequest: TypeAlias = StreamRequest | PageRequest


class RequestLimits(Struct, frozen=True, gc=False):
    """The largest sizes of the parts of a request, in bytes."""

    header_bytes: int = 32_768
    target_bytes: int = 8_192
    body_bytes: int = 10_485_760


_DISTRUST: Final = Reading()


class Admission:
    """
    The rules for requests that arrive on connections of one kind; trusted proxies have their own.

    :ivar base: the path prefix of streams.
    :ivar reading: the headers that are read, and those that are dropped.
    """

    __slots__ = ("base", "limits", "proxies", "reading")

    def __init__(
        self,
        base: bytes,
        limits: RequestLimits,
        reading: Reading = _DISTRUST,
        proxies: Proxies | None = None,
    ) -> None:
        self.base = base
        self.limits = limits
        self.reading = reading
        self.proxies = proxies or Proxies()
