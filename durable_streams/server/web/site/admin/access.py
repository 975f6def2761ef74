"""Who may use the pages for operators: clients with a token, those that a program allows, or only this machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from ....errors import NotAllowed, NotAuthenticated, StreamsError
from ....identity.challenges import BEARER
from ....identity.operations import ADMIN
from ....identity.principal import NOBODY
from ...answers import Answers
from ...callers import UNIX_PEER
from ...origins import is_own_origin
from ...pages import PageRequest
from ...problems import OriginNotAllowed

if TYPE_CHECKING:
    from ...page_access import PageAccess, RequestRights

#: Decides whether a request for a page of operators is allowed: returns whether it is, or an awaitable of that. It may
#: also raise :exc:`.NotAuthenticated` (401) or :exc:`.NotAllowed` (403) with a sentence for the client.
AdminAuthorization: TypeAlias = Callable[[PageRequest], "bool | Awaitable[bool]"]

#: Headers that only proxies send. Some are dropped unless the proxy is trusted.
_OF_PROXIES: Final = (
    b"cf-connecting-ip",
    b"forwarded",
    b"via",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-prefix",
    b"x-forwarded-proto",
    b"x-forwarded-server",
    b"x-real-ip",
)

_HOSTS: Final = frozenset([b"localhost", b"ip6-localhost"])


class AdminGuard:
    """
    Checks each request for a path at or below the base path, before there is a look whether it has a page.

    :param base_path: of the pages; None if there are none.
    :param authorize: allows or refuses requests; by default :func:`allow_local`.
    :param access: asked if ``authorize`` does not allow a request; None if requests are not authenticated.
    :param covers_pages: whether other pages are checked as well, except those that are public (:func:`.public_page`).
    :ivar answers: renders the answers, which no page of another origin may read.
    """

    def __init__(
        self,
        base_path: str | None,
        authorize: AdminAuthorization | None = None,
        access: PageAccess | None = None,
        covers_pages: bool = False,
    ) -> None:
        self._base = None if base_path is None else base_path.rstrip("/")
        self._authorize = allow_local if authorize is None else authorize
        self._access = access
        self.covers_pages = covers_pages
        self.answers = Answers(())

    def covers(self, path: str) -> bool:
        """
        Return whether a path is checked.

        :param path: decoded, as the pages are routed by it.
        """
        base = self._base
        return base is not None and (path == base or path.startswith(base + "/"))

    def rights(self, request: PageRequest) -> RequestRights | None:
        """Return the rights of a request for :meth:`check`; None if requests are not authenticated."""
        return None if self._access is None else self._access.rights(request)

    async def check(self, request: PageRequest, rights: RequestRights | None = None) -> None:
        """
        Check that a request is allowed.

        :param rights: of the request, from :meth:`rights`.
        :raises NotAuthenticated: it has no valid credentials.
        :raises NotAllowed: it is not allowed.
        :raises OriginNotAllowed: a web page of another origin has sent it.
        """
        _check_origin(request)
        refusal: StreamsError = NotAllowed("This client may not use the pages for operators.")
        try:
            allowed = self._authorize(request)
            if not isinstance(allowed, bool):
                allowed = await allowed
        except (NotAuthenticated, NotAllowed) as error:
            allowed, refusal = False, error
        if rights is not None:
            await _check_rights(request, rights, allowed is True, refusal)
        elif allowed is not True:
            raise refusal


async def _check_rights(request: PageRequest, rights: RequestRights, is_allowed: bool, refusal: StreamsError) -> None:
    """
    Check that a request's principal has the right ``admin``, unless the request is allowed anyway.

    An anonymous one needs to be on this machine, whatever the rules say: a web page can make a browser in the server's
    network send requests without credentials.

    :param refusal: why the request is not allowed without credentials of a principal.
    :raises NotAuthenticated: it has no credentials, or they are invalid.
    :raises NotAllowed: its principal is denied ``admin``.
    """
    if is_allowed:
        rights.allow("operator")
        return
    try:
        await rights.authenticate()
        rights.require(ADMIN)
    except NotAuthenticated:
        if rights.has_credentials:
            raise
        raise refusal from None
    if rights.principal.kind == NOBODY:
        allow_local(request)


def deny_all(request: PageRequest) -> bool:
    """
    Refuse every request: only the access control allows some.

    :raises NotAuthenticated: always.
    """
    raise NotAuthenticated(
        "The pages for operators need credentials that a rule allows admin. Send a token as Authorization: Bearer.",
        BEARER,
    )


def allow_local(request: PageRequest) -> bool:
    """
    Allow requests of clients on this machine.

    A proxy on this machine passes on the requests of other machines. So a request is refused if it carries the headers
    of a proxy, or asks for a host that is not this machine. The latter also stops web pages that have their own name
    resolve to a loopback address.

    :raises NotAllowed: the request comes from another machine, or may do so.
    """
    caller = request.caller
    if not is_local(caller.address) or not is_local(caller.client_address):
        raise NotAllowed(
            "Without admin.token_file, the pages for operators can only be used from the server's own machine."
        )
    is_named = caller.client is not None and caller.client.address is not None
    # A trusted proxy may send Forwarded or X-Forwarded-Proto without the client's address.
    if not is_named and (request.forwarded or any(request.header(name) is not None for name in _OF_PROXIES)):
        raise NotAllowed(
            "The request comes through a proxy. Without admin.token_file, the pages for operators can only be used "
            "directly from the server's own machine."
        )
    host = request.header(b"host")
    if host is not None and not _is_local_host(host):
        raise NotAllowed(
            "Without admin.token_file, the pages for operators can only be used with a URL of localhost, 127.0.0.1 or "
            "[::1]."
        )
    return True


def allow_certificates(request: PageRequest) -> bool:
    """
    Allow clients whose certificate the TLS handshake has verified, and otherwise what :func:`allow_local` allows.

    The certificate of a trusted proxy does not count, since the proxy passes on the requests of others.

    :raises NotAllowed: the client has no certificate, and is not on this machine.
    """
    caller = request.caller
    return (caller.subject is not None and not caller.trusted) or allow_local(request)


def is_local(address: str) -> bool:
    """Return whether an address is that of a client on this machine; that of a UNIX socket is."""
    if address == UNIX_PEER:
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _is_local_host(host: bytes) -> bool:
    """Return whether a value of Host, with or without a port, names this machine."""
    name = host.lower()
    name = name.partition(b"]")[0].lstrip(b"[") if name.startswith(b"[") else name.partition(b":")[0]
    name = name.removesuffix(b".")
    return name in _HOSTS or name.endswith(b".localhost") or is_local(name.decode("latin-1"))


def _check_origin(request: PageRequest) -> None:
    """
    Check that no page of another origin has sent a request: browsers attach certificates, or send it from this machine.

    :raises OriginNotAllowed: such a page has sent it.
    """
    origin = request.header(b"origin")
    is_foreign = origin is not None and not is_own_origin(origin, request.caller, request.header(b"host"))
    site, mode = request.header(b"sec-fetch-site"), request.header(b"sec-fetch-mode")
    if is_foreign or (site in (b"cross-site", b"same-site") and mode != b"navigate"):
        raise OriginNotAllowed("A web page of another origin may not use the pages for operators.")
