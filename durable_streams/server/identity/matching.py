"""
Index of rules and grants by operation and by pattern of names; the patterns are a trie by segment.

A set of rules is an int with a bit for each, so that sets of hundreds are joined and intersected at the cost of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..protocol.names import RESERVED_SEGMENT
from .operations import ADMIN, OPERATIONS, SUBSCRIBE
from .patterns import EVERYTHING, SUBSCRIPTIONS, Part, Parts, PlainParts, Star, Substitution, substituted
from .principal import Principal


class _Node:
    """
    A node of the trie: the patterns that begin with the same segments.

    :ivar ends: the bits of those that end here.
    :ivar rest: the bits of those that have only ``**`` after this.
    :ivar repeats: whether the node is a ``**`` inside of patterns, which matches further segments too.
    """

    __slots__ = ("children", "ends", "one", "repeats", "rest", "run", "substituted")

    def __init__(self, repeats: bool = False) -> None:
        self.children: dict[str, _Node] = {}
        self.one: _Node | None = None
        self.run: _Node | None = None
        self.substituted: list[tuple[Substitution, _Node]] = []
        self.ends = 0
        self.rest = 0
        self.repeats = repeats

    def below(self, part: Part) -> _Node:
        """Return the node of the next segment, and add it if it is missing."""
        if part is Star.ONE:
            self.one = self.one or _Node()
            return self.one
        if part is Star.ANY:
            self.run = self.run or _Node(repeats=True)
            return self.run
        if isinstance(part, str):
            return self.children.setdefault(part, _Node())
        for other, node in self.substituted:
            if isinstance(part, Substitution) and other.text == part.text:
                return node
        assert isinstance(part, Substitution)
        node = _Node()
        self.substituted.append((part, node))
        return node


class NameIndex:
    """
    Patterns of names as a trie by segment.

    A look-up visits each node at most once for each segment of the name: it costs by the patterns that agree with the
    beginning of the name, not by the number of patterns, and at worst by the product of both.
    """

    def __init__(self, patterns: Iterable[tuple[int, Parts]]) -> None:
        self._root = _Node()
        self._has_runs = False
        for bit, parts in patterns:
            node = self._root
            for part in parts[:-1]:
                node = node.below(part)
                self._has_runs = self._has_runs or part is Star.ANY
            if parts[-1] is Star.ANY:
                node.rest |= bit
            else:
                node.below(parts[-1]).ends |= bit

    def matching(self, principal: Principal, name: str) -> int:
        """Return the bits of the patterns that match a name; a reserved one, only of those that begin with ``__ds``."""
        segments = name.split("/")
        node = self._root
        if segments[0] == RESERVED_SEGMENT:
            reserved = node.children.get(RESERVED_SEGMENT)
            if reserved is None:
                return 0
            node = reserved
            del segments[0]
        if self._has_runs:
            return _walk_with_runs(node, principal, segments)
        return _walk(node, principal, segments)


def _walk(start: _Node, principal: Principal, segments: Sequence[str]) -> int:
    """Find the bits of the patterns below a node that match segments. There is no ``**`` except at the ends."""
    found = start.rest
    nodes = [start]
    for segment in segments:
        following: list[_Node] = []
        for node in nodes:
            child = node.children.get(segment)
            if child is not None:
                found |= child.rest
                following.append(child)
            child = node.one
            if child is not None:
                found |= child.rest
                following.append(child)
            for substitution, child in node.substituted:
                if substitution.value(principal) == segment:
                    found |= child.rest
                    following.append(child)
        if not following:
            return found
        nodes = following
    for node in nodes:
        found |= node.ends
    return found


def _walk_with_runs(start: _Node, principal: Principal, segments: Sequence[str]) -> int:
    """Find the bits of the patterns below a node that match segments."""
    found = 0
    # The nodes whose pattern matches the segments so far, without repeats.
    nodes: dict[_Node, None] = {}
    _reach(nodes, start)
    for segment in segments:
        following: dict[_Node, None] = {}
        for node in nodes:
            found |= node.rest
            if node.repeats:
                _reach(following, node)
            child = node.children.get(segment)
            if child is not None:
                _reach(following, child)
            if node.one is not None:
                _reach(following, node.one)
            for substitution, child in node.substituted:
                if substitution.value(principal) == segment:
                    _reach(following, child)
        nodes = following
    for node in nodes:
        found |= node.rest | node.ends
    return found


def _reach(nodes: dict[_Node, None], node: _Node) -> None:
    """Add a node, and the ``**`` below it, which matches without a segment too."""
    below: _Node | None = node
    while below is not None and below not in nodes:
        nodes[below] = None
        below = below.run


class TargetIndex:
    """
    Index of the items of a list, rules or grants, by their operations and patterns of names.

    :param targets: the operations and patterns of each item, in order. Item n has bit n. ``**`` includes the
        subscriptions for ``subscribe``.
    """

    def __init__(self, targets: Sequence[tuple[frozenset[str], Sequence[Parts]]]) -> None:
        self._concerned = dict.fromkeys(OPERATIONS, 0)
        self._everything = 0
        patterns: list[tuple[int, Parts]] = []
        for number, (operations, names) in enumerate(targets):
            bit = 1 << number
            for operation in concerned_operations(operations, names):
                self._concerned[operation] |= bit
            if not names or EVERYTHING in names:
                self._everything |= bit
            patterns += ((bit, parts) for parts in names)
        self._names = NameIndex(patterns)

    def concerned(self, operation: str) -> int:
        """
        Return the bits of the items that concern an operation, on whatever names.

        :raises KeyError: there is no such operation.
        """
        return self._concerned[operation]

    def matching(self, principal: Principal, operation: str, name: str, candidates: int = -1) -> int:
        """
        Return the bits of the items that concern an operation on a name.

        :param candidates: the bits that are of interest.
        :raises KeyError: there is no such operation.
        """
        candidates &= self._concerned[operation]
        if not candidates or operation == ADMIN:
            return candidates
        found = self._names.matching(principal, name)
        if operation == SUBSCRIBE and _is_subscription(name):
            found |= self._everything
        return candidates & found


def concerned_operations(operations: frozenset[str], names: Sequence[Parts]) -> frozenset[str]:
    """Return the operations that an item concerns: ``admin`` only if one of its patterns is ``**``, or it has none."""
    return operations if not names or EVERYTHING in names else operations - {ADMIN}


def patterns_for(names: Iterable[Parts], operation: str, principal: Principal) -> list[PlainParts]:
    """Return patterns as they match for an operation and a principal, each comparable with others."""
    found = []
    for parts in names:
        plain = substituted(parts, principal)
        if plain is not None:
            found.append(plain)
        if parts == EVERYTHING and operation == SUBSCRIBE:
            found.append(SUBSCRIPTIONS)
    return found


def _is_subscription(name: str) -> bool:
    """Return whether a name is that of a subscription."""
    segments = name.split("/")
    return len(segments) == len(SUBSCRIPTIONS) and tuple(segments[:2]) == SUBSCRIPTIONS[:2]
