"""The default listener of a storage."""

from __future__ import annotations

from zope.interface import implementer

from ..interfaces import ICommitListener


@implementer(ICommitListener)
class NullListener:
    """A commit listener that does nothing."""

    def committed(self, name: str) -> None:
        """Do nothing."""
