"""The lists of grants that credentials carry, compiled for decisions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from ..errors import InvalidName
from .matching import TargetIndex
from .operations import expand
from .patterns import PlainParts, literal_parts, parse_plain
from .principal import Grant, Principal

#: The maximum of principals whose grants are kept compiled, and of the segments of all their patterns, which take about
#: 450 bytes each.
_MAX_COMPILED: Final = 1024
_MAX_SEGMENTS: Final = 16_384


def granted_targets(grants: Iterable[Grant]) -> list[tuple[frozenset[str], tuple[PlainParts]]]:
    """Return the operations and the pattern of each grant, without the invalid ones: those grant nothing."""
    found = []
    for grant in grants:
        try:
            operations = expand(grant.operations)
            parts = literal_parts(grant.pattern) if grant.literal else parse_plain(grant.pattern)
        except (InvalidName, ValueError):
            continue
        found.append((operations, (parts,)))
    return found


class _Compiled(Struct, frozen=True):
    """
    The grants of a principal.

    :ivar principal: is kept, so that its id is not used again.
    :ivar segments: the number of segments of their patterns.
    """

    principal: Principal
    index: TargetIndex
    segments: int


class CompiledGrants:
    """The grants of the principals that were seen lately, compiled at the first decision about each."""

    def __init__(self) -> None:
        # By the identity of the principal.
        self._compiled: dict[int, _Compiled] = {}
        self._segments = 0

    def __len__(self) -> int:
        """Return the number of principals whose grants are compiled."""
        return len(self._compiled)

    def allow(self, principal: Principal, operation: str, name: str) -> bool:
        """
        Return whether one of a principal's grants includes an operation on a name.

        :raises KeyError: there is no such operation.
        """
        compiled = self._compiled.get(id(principal)) or self._compile(principal)
        return bool(compiled.index.matching(principal, operation, name))

    def _compile(self, principal: Principal) -> _Compiled:
        assert principal.grants is not None
        targets = granted_targets(principal.grants)
        segments = sum(len(parts) for _, patterns in targets for parts in patterns)
        while self._compiled and (len(self._compiled) >= _MAX_COMPILED or self._segments + segments > _MAX_SEGMENTS):
            self._segments -= self._compiled.pop(next(iter(self._compiled))).segments
        compiled = self._compiled[id(principal)] = _Compiled(principal, TargetIndex(targets), segments)
        self._segments += segments
        return compiled
