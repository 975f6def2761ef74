"""Principals: who sends a request, as far as its credentials prove it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from zope.interface import Attribute, Interface, implementer

#: The kind of :data:`ANONYMOUS`, and of no other principal.
NOBODY: Final = "anonymous"

#: The kind of principals of signed URLs.
SIGNED_URL: Final = "signed-url"

_NO_CLAIMS: Final[Mapping[str, object]] = MappingProxyType({})


class Grant(Struct, frozen=True, gc=False):
    """
    One item of the narrower list of rights that a credential carries.

    :ivar operations: names of operations; ``read`` includes ``head``, and ``all`` every one. Only the pattern ``**``
        grants ``admin``.
    :ivar pattern: of the names of streams, as in rules, but without substitutions: braces are plain text. A grant with
        an invalid pattern, or with an unknown operation, grants nothing.
    :ivar literal: whether the pattern is the name of one stream, in which stars are plain text too.
    """

    operations: frozenset[str]
    pattern: str
    literal: bool = False


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

    def __repr__(self) -> str:
        """Return who it is, without the claims, which may be personal data."""
        return f"Principal(subject={self.subject!r}, kind={self.kind!r}, credential={self.credential!r})"


#: The principal of requests without credentials.
ANONYMOUS: Final = Principal("", NOBODY)
