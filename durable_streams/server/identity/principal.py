"""Principals: who sends a request, as far as its credentials prove it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from zope.interface import Attribute, Interface, implementer

_NO_CLAIMS: Final[Mapping[str, object]] = MappingProxyType({})


class Grant(Struct, frozen=True):
    """
    One item of the narrower list of rights that a credential carries.

    :ivar operations: names of operations.
    :ivar pattern: of the names of streams, as in rules.
    """

    operations: frozenset[str]
    pattern: str


class IPrincipal(Interface):
    """The avatar interface of the portal: a realm returns a :class:`Principal` for it."""

    subject = Attribute("Who it is; empty for anonymous requests.")
    kind = Attribute("How it was authenticated: token, jwt, certificate, header, signed-url, anonymous, or another.")
    groups = Attribute("A frozenset of the names of its groups.")
    claims = Attribute("A mapping of what else is known of it.")
    expires_at = Attribute("When its credential expires, in UNIX seconds; None for never.")
    grants = Attribute("A tuple of grants: a narrower list than the rules; None if there is none.")
    credential = Attribute("The id of its credential, for revocation and the audit log; never a secret.")


@implementer(IPrincipal)
class Principal(Struct, frozen=True, eq=False, weakref=True):
    """
    Who sends a request. Two principals are equal only if they are the same object.

    :ivar subject: who; empty for anonymous requests.
    :ivar kind: ``token``, ``jwt``, ``certificate``, ``header``, ``signed-url``, ``anonymous``, or a word of the program
        that embeds the server.
    :ivar groups: the names of groups.
    :ivar claims: of a JWT, or of the record of a token.
    :ivar expires_at: in UNIX seconds; None for never.
    :ivar grants: a narrower list: what no grant names is denied, whatever the rules say. None without such a list.
    :ivar credential: the id of the credential (token id, jti, key id), for audit and revocation; never a secret.
    """

    subject: str
    kind: str
    groups: frozenset[str] = frozenset()
    claims: Mapping[str, object] = _NO_CLAIMS
    expires_at: float | None = None
    grants: tuple[Grant, ...] | None = None
    credential: str = ""


#: The principal of requests without credentials.
ANONYMOUS: Final = Principal("", "anonymous")
