"""The interface of checkers whose credentials can be revoked while they are in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from zope.interface import Attribute, Interface

from .principal import Principal


class IRevocations(Interface):
    """An optional interface of credentials checkers: their credentials can be revoked before they expire."""

    kinds = Attribute("A collection of the kinds of principals that the checker makes.")

    def is_current(principal: Principal) -> bool:
        """
        Return whether a principal that this checker has made would be made of the same credential now.

        This is called often: for each live read once a second. It must not block.
        """


def revocations_of(checkers: Iterable[object]) -> Mapping[str, Callable[[Principal], bool]]:
    """Return the ``is_current`` of the checkers that can revoke, by the kind of their principals."""
    return {
        kind: checker.is_current for checker in checkers if IRevocations.providedBy(checker) for kind in checker.kinds
    }
