"""The lists of grants that credentials carry, compiled for decisions."""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import InvalidName
from .matching import TargetIndex
from .operations import expand
from .patterns import Parts, literal_parts, parse_parts
from .principal import Grant, Principal

#: The maximum of principals whose grants are kept compiled.
_MAX_COMPILED = 1024


def granted_targets(grants: Iterable[Grant]) -> list[tuple[frozenset[str], tuple[Parts]]]:
    """Return the operations and the pattern of each grant, without the invalid ones: those grant nothing."""
    found = []
    for grant in grants:
        try:
            operations = expand(grant.operations)
            parts = literal_parts(grant.pattern) if grant.literal else parse_parts(grant.pattern, substitutions=False)
        except (InvalidName, ValueError):
            continue
        found.append((operations, (parts,)))
    return found


class CompiledGrants:
    """The grants of the principals that were seen lately, compiled at the first decision about each."""

    def __init__(self) -> None:
        # By identity: the principal is kept so that its id is not used again.
        self._compiled: dict[int, tuple[Principal, TargetIndex]] = {}

    def allow(self, principal: Principal, operation: str, name: str) -> bool:
        """
        Return whether one of a principal's grants includes an operation on a name.

        :raises KeyError: there is no such operation.
        """
        compiled = self._compiled.get(id(principal))
        if compiled is None:
            assert principal.grants is not None
            if len(self._compiled) >= _MAX_COMPILED:
                self._compiled.clear()
            compiled = self._compiled[id(principal)] = (principal, TargetIndex(granted_targets(principal.grants)))
        return bool(compiled[1].matching(principal, operation, name))
