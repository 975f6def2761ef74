"""The paths of the subscription APIs: what each is for, and what a request for it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_to_bytes

from msgspec import Struct

from ..errors import StreamNotFound, StreamsError
from ..subscriptions import InvalidSubscriptionId, SubscriptionNotFound, check_id
from .problems import MethodNotAllowed
from .requests import StreamRequest

if TYPE_CHECKING:
    from .page_access import RequestRights

#: What a route needs of a request, where requests are authenticated: nothing; the token of a claim in Authorization; or
#: credentials that may ``subscribe`` on the name of the subscription.
PUBLIC, CLAIM_TOKEN, SUBSCRIBE = "public", "claim-token", "subscribe"


class Route(Struct, frozen=True):
    """
    A path below ``__ds``.

    :ivar methods: its methods.
    :ivar needs: :data:`PUBLIC`, :data:`CLAIM_TOKEN` or :data:`SUBSCRIBE`.
    """

    methods: tuple[bytes, ...]
    needs: str


_POST: Final = (b"POST",)

#: Path -> route. A new route needs a decision here.
ROUTES: Final = {
    "jwks.json": Route((b"GET", b"HEAD"), PUBLIC),
    "subscriptions/ID": Route((b"DELETE", b"GET", b"HEAD", b"PUT"), SUBSCRIBE),
    "subscriptions/ID/streams": Route(_POST, SUBSCRIBE),
    "subscriptions/ID/streams/NAME": Route((b"DELETE",), SUBSCRIBE),
    "subscriptions/ID/claim": Route(_POST, SUBSCRIBE),
    "subscriptions/ID/ack": Route(_POST, CLAIM_TOKEN),
    "subscriptions/ID/callback": Route(_POST, CLAIM_TOKEN),
    "subscriptions/ID/release": Route(_POST, CLAIM_TOKEN),
}


class SubscriptionCall(Struct, frozen=True):
    """
    A request for a route.

    :ivar subscription_id: empty for a path that has none.
    :ivar path: the name of the stream in the path, as it was sent; empty for a path that has none.
    :ivar rights: what its principal may do; None if requests are not authenticated, or the route asks for no principal.
    """

    request: StreamRequest
    route: str
    subscription_id: str = ""
    path: str = ""
    rights: RequestRights | None = None


class _NoSuchRoute(StreamNotFound):
    """There is nothing at a path below ``__ds``."""

    def __init__(self) -> None:
        StreamsError.__init__(
            self, "There is nothing at this path. Subscriptions are at __ds/subscriptions/ID, keys at __ds/jwks.json."
        )


def call_of(request: StreamRequest) -> SubscriptionCall:
    """
    Return what a request asks for.

    :raises _NoSuchRoute: there is nothing at its path.
    :raises MethodNotAllowed: the path does not have the method.
    :raises SubscriptionNotFound: no subscription can have the id in the path.
    :raises InvalidSubscriptionId: no subscription can be created with it.
    """
    # Segments are split before they are decoded, so that %2F separates none.
    first, *rest = request.path.split(b"/")
    segments = [unquote(segment, errors="surrogateescape") for segment in rest]
    if unquote_to_bytes(first) != b"__ds":
        raise _NoSuchRoute
    match segments:
        case ["jwks.json"]:
            call = SubscriptionCall(request, "jwks.json")
        case ["subscriptions", subscription_id]:
            call = SubscriptionCall(request, "subscriptions/ID", subscription_id)
        case ["subscriptions", subscription_id, action] if f"subscriptions/ID/{action}" in ROUTES:
            call = SubscriptionCall(request, f"subscriptions/ID/{action}", subscription_id)
        case ["subscriptions", subscription_id, "streams", *path] if path != [""]:
            call = SubscriptionCall(request, "subscriptions/ID/streams/NAME", subscription_id, "/".join(path))
        case _:
            raise _NoSuchRoute
    _check_method(request, ROUTES[call.route].methods)
    if request.method == b"PUT":
        check_id(call.subscription_id)
    elif call.route != "jwks.json":
        _check_known_id(call.subscription_id)
    return call


def _check_method(request: StreamRequest, methods: tuple[bytes, ...]) -> None:
    if request.method not in methods:
        allowed = b", ".join(methods)
        raise MethodNotAllowed(f"This path supports {allowed.decode()}.", allowed)


def _check_known_id(subscription_id: str) -> None:
    """
    Check that an id is one that a subscription may have.

    :raises SubscriptionNotFound: it is not.
    """
    try:
        check_id(subscription_id)
    except InvalidSubscriptionId:
        raise SubscriptionNotFound(ascii(subscription_id[:256])) from None
