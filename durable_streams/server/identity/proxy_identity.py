"""The checker of identities that a trusted proxy names in a header."""

from __future__ import annotations

from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from ..errors import NotAuthenticated
from .credentials import IProxyIdentity, ProxyIdentity
from .principal import Principal

#: The largest size of an identity, in bytes.
MAX_BYTES: Final = 1024


@implementer(ICredentialsChecker)
class ProxyIdentityChecker:
    """
    Makes principals of the identities that a trusted proxy names (``proxy.identity``).

    The web reads the header from trusted proxies with a client certificate only. The proxy has authenticated the
    client, so there is nothing left to check but that the value is a readable text.
    """

    credentialInterfaces = (IProxyIdentity,)

    def requestAvatarId(self, credentials: ProxyIdentity) -> Any:
        """
        Return the :class:`.Principal` of an identity.

        :raises NotAuthenticated: it is not UTF-8, not printable, or too long.
        """
        # Header values are decoded as Latin-1, which keeps all bytes.
        value = credentials.identity.encode("latin-1", "replace").strip()
        try:
            subject = value.decode("utf-8")
        except UnicodeDecodeError:
            subject = ""
        if not subject or not subject.isprintable() or len(value) > MAX_BYTES:
            raise NotAuthenticated(
                f"The identity that the proxy names must be 1 to {MAX_BYTES} bytes of printable UTF-8 text. Change "
                "what the proxy puts into the header proxy.identity.header_name."
            )
        return Principal(subject, "header")
