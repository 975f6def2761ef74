"""The patterns of subscriptions: how they are read, and their index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from ..errors import InvalidName
from ..protocol.names import RESERVED_SEGMENT, NameLimits, check_name
from ..protocol.patterns import ANY, ONE, PARTIAL_STAR, has_partial_star
from .errors import InvalidConfig, InvalidPath

_T = TypeVar("_T")


def parse_pattern(text: str, limits: NameLimits) -> str:
    """
    Return a pattern without slashes at its ends, and with each run of ``**`` segments as one.

    :raises InvalidConfig: a segment has ``*`` beside other characters.
    :raises InvalidPath: the pattern breaks a rule of stream names.
    """
    stripped = text.strip("/")
    try:
        check_name(stripped, limits)
    except InvalidName as error:
        raise InvalidPath(f"pattern: {error}") from None
    kept: list[str] = []
    for segment in stripped.split("/"):
        if has_partial_star(segment):
            raise InvalidConfig("pattern", PARTIAL_STAR)
        if segment != ANY or not kept or kept[-1] != ANY:
            kept.append(segment)
    return "/".join(kept)


class _Node(Generic[_T]):
    """One segment of patterns: those that end here, and those that go on."""

    __slots__ = ("children", "repeats", "values")

    def __init__(self, segment: str = "") -> None:
        self.children: dict[str, _Node[_T]] = {}
        self.values: set[_T] = set()
        #: Whether the segment is ``**``, which matches further segments too.
        self.repeats = segment == ANY


class PatternIndex(Generic[_T]):
    """
    The patterns of all subscriptions, as a trie by segment.

    A look-up visits each node of the trie at most once for each segment of the name: it costs by the patterns that
    agree with the beginning of the name, not by the number of subscriptions.
    """

    def __init__(self) -> None:
        self._root: _Node[_T] = _Node()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, pattern: str, value: _T) -> None:
        """Register a value under a parsed pattern. Adding the same pair again has no effect."""
        node = self._root
        for segment in pattern.split("/"):
            child = node.children.get(segment)
            if child is None:
                child = node.children[segment] = _Node(segment)
            node = child
        if value not in node.values:
            node.values.add(value)
            self._size += 1

    def remove(self, pattern: str, value: _T) -> None:
        """Remove a value from under a pattern. Removing an absent pair has no effect."""
        path: list[tuple[_Node[_T], str]] = []
        node = self._root
        for segment in pattern.split("/"):
            child = node.children.get(segment)
            if child is None:
                return
            path.append((node, segment))
            node = child
        if value not in node.values:
            return
        node.values.discard(value)
        self._size -= 1
        for parent, segment in reversed(path):
            child = parent.children[segment]
            if child.values or child.children:
                return
            del parent.children[segment]

    def matching(self, name: str) -> set[_T]:
        """Return the values of all patterns that match a name."""
        segments = name.split("/")
        if not self._size or segments[0] == RESERVED_SEGMENT:
            return set()
        # The nodes whose pattern matches the segments so far.
        nodes = _with_empty_runs([self._root])
        for segment in segments:
            following = [node for node in nodes if node.repeats]
            for node in nodes:
                for part in {segment, ONE}:
                    child = node.children.get(part)
                    if child is not None:
                        following.append(child)
            nodes = _with_empty_runs(following)
            if not nodes:
                return set()
        return set().union(*(node.values for node in nodes))


def _with_empty_runs(nodes: Iterable[_Node[_T]]) -> set[_Node[_T]]:
    """Return nodes with those of ``**`` below them, which match without a segment too."""
    found: set[_Node[_T]] = set()
    for node in nodes:
        below: _Node[_T] | None = node
        while below is not None and below not in found:
            found.add(below)
            below = below.children.get(ANY)
    return found
