"""The operations that a request for a stream needs to be allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Struct

from ..errors import InvalidRequest
from .requests import StreamRequest
from .writes import fork_source, is_true

_READ: Final = ("read",)

#: Operation of a request -> the operations that it needs to be allowed, whatever its headers and its body.
_ALWAYS: Final = {"read": _READ, "poll": _READ, "subscribe": _READ, "head": ("head",), "delete": ("delete",)}

#: Whether there is a body, and whether it closes the stream -> the operations that a POST needs, and those of a PUT.
_APPENDS: Final = {
    (False, False): ("append",),
    (True, False): ("append",),
    (False, True): ("close",),
    (True, True): ("append", "close"),
}
_CREATES: Final = {
    (False, False): ("create",),
    (True, False): ("create", "append"),
    (False, True): ("create", "close"),
    (True, True): ("create", "append", "close"),
}

#: What a fork needs on its source.
ON_SOURCE: Final = ("fork-from", "read")


class NeededOperations(Struct, frozen=True, gc=False):
    """
    What a request needs.

    :ivar operations: on the stream that it names.
    :ivar source: the name of the stream that it forks, on which it needs :data:`ON_SOURCE`; None if it forks none.
    """

    operations: tuple[str, ...]
    source: str | None = None


def needed_operations(
    request: StreamRequest, read_name: Callable[[bytes], str], has_body: bool | None = None
) -> NeededOperations:
    """
    Return the operations that a request needs.

    If the source of a fork is malformed, the request needs what it would need without one: the operation refuses it.

    :param request: a GET, HEAD, PUT, POST or DELETE.
    :param read_name: as the operations read names.
    :param has_body: whether there is a body, if it has not arrived; None if it has.
    """
    always = _ALWAYS.get(request.operation)
    if always is not None:
        return NeededOperations(always)
    body = bool(request.body) if has_body is None else has_body
    writes = body, is_true(request.headers.get(b"stream-closed"))
    if request.operation == "append":
        return NeededOperations(_APPENDS[writes])
    try:
        source = fork_source(request, read_name)
    except InvalidRequest:
        source = None
    return NeededOperations(_CREATES[writes], source)
