"""The part of a twisted.web resource that answers all paths below it itself."""

from __future__ import annotations

from typing import ClassVar

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Request
from zope.interface import implementer


@implementer(IResource)
class Leaf:
    """
    A resource without children.

    :cvar refusal: why it takes none.
    """

    isLeaf = True
    refusal: ClassVar[str] = "This resource takes no children: it serves all paths below it."

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Return the resource itself: a leaf has no children."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse a child.

        :raises NotImplementedError: always; put it beside, or add a page with :meth:`.Pages.add`.
        """
        raise NotImplementedError(self.refusal)

    def render(self, request: Request) -> int:
        """Answer a request; each subclass does it in its own way."""
        raise NotImplementedError
