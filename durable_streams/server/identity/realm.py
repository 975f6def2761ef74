"""The realm of the portal, which turns the avatar ids of checkers into principals."""

from __future__ import annotations

from collections.abc import Callable

from twisted.cred.portal import IRealm
from zope.interface import Interface, implementer

from .principal import ANONYMOUS, IPrincipal, Principal

#: The kind of principals that checkers of other programs name by a plain avatar id.
CUSTOM = "custom"


@implementer(IRealm)
class PrincipalRealm:
    """
    Returns a :class:`Principal` for :class:`IPrincipal`.

    An avatar id is a Principal, which stays as it is; text or UTF-8 bytes, which become the subject of a principal of
    the kind ``custom``; or the empty tuple, by which ``AllowAnonymousAccess`` of twisted.cred means nobody.
    """

    def requestAvatar(
        self, avatarId: object, mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], Principal, Callable[[], None]]:
        """
        Return the principal of an avatar id.

        :raises NotImplementedError: no interface is :class:`IPrincipal`.
        :raises TypeError: a checker has returned something else, or an empty avatar id.
        """
        if IPrincipal not in interfaces:
            raise NotImplementedError("This realm only has principals: ask it for IPrincipal.")
        return IPrincipal, principal_from(avatarId), _log_out


def principal_from(avatar_id: object) -> Principal:
    """
    Return the principal that an avatar id stands for.

    :raises TypeError: it is not of a type that a checker may return, or it is empty.
    """
    if isinstance(avatar_id, Principal):
        return avatar_id
    if avatar_id == ():
        return ANONYMOUS
    subject = avatar_id.decode() if isinstance(avatar_id, bytes) else avatar_id
    # The value may be a secret, so the message has only its type.
    if not isinstance(subject, str):
        raise TypeError(f"A credentials checker returned {type(avatar_id).__name__}: return a Principal, str or bytes.")
    if not subject:
        raise TypeError("A credentials checker returned an empty avatar id: an empty subject is anonymous.")
    return Principal(subject, CUSTOM)


def _log_out() -> None:
    """Do nothing: a principal holds no resources."""
