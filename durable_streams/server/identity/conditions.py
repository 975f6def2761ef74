"""The conditions on a principal in rules, and their index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from .claims import claim_texts, find_claim
from .principal import NOBODY, Principal

AUTHENTICATED: Final = "authenticated"
ANONYMOUS: Final = "anonymous"
SUBJECT: Final = "subject"
GROUP: Final = "group"
CLAIM: Final = "claim"
KIND: Final = "kind"


class Condition(Struct, frozen=True):
    """
    One condition on a principal.

    :ivar about: ``authenticated``, ``anonymous``, ``subject``, ``group``, ``claim`` or ``kind``.
    :ivar value: what the subject, the kind, a group or the claim must equal.
    :ivar path: the path of the claim.
    """

    about: str
    value: str = ""
    path: str = ""

    def holds(self, principal: Principal) -> bool:
        """Return whether the condition holds for a principal."""
        if self.about == SUBJECT:
            return principal.subject == self.value
        if self.about == GROUP:
            return self.value in principal.groups
        if self.about == CLAIM:
            return self.value in claim_texts(find_claim(principal.claims, self.path))
        return self.holds_for_kind(principal.kind)

    def holds_for_kind(self, kind: str) -> bool:
        """Return whether a condition on the kind holds for one; conditions on something else do."""
        if self.about == AUTHENTICATED:
            return kind != NOBODY
        if self.about == ANONYMOUS:
            return kind == NOBODY
        return self.about != KIND or kind == self.value


#: The conditions of a rule, all of which must hold; none for anyone.
Conditions: TypeAlias = tuple[Condition, ...]


class _Table:
    """
    Which items have which value in their condition on one subject matter.

    :ivar unconditional: the bits of the items that have no such condition.
    :ivar by_value: value -> the bits of the items that hold for it: those that require it, and the unconditional ones.
    """

    __slots__ = ("by_value", "unconditional")

    def __init__(self, required: Iterable[tuple[int, str]], every: int) -> None:
        bits: dict[str, int] = {}
        for bit, value in required:
            bits[value] = bits.get(value, 0) | bit
            every &= ~bit
        self.unconditional = every
        self.by_value = {value: found | every for value, found in bits.items()}

    def any_of(self, values: Iterable[str]) -> int:
        """Return the bits of the items that hold for one of several values."""
        found = self.unconditional
        for value in values:
            found |= self.by_value.get(value, 0)
        return found


class ConditionIndex:
    """
    Find the items of a list whose conditions hold for a principal, without looking at each. Item n has bit n.

    Claims are looked up last: that costs more than all the rest, and few items are left by then.

    :param items: the conditions of each item, in order.
    """

    def __init__(self, items: Sequence[Conditions]) -> None:
        every = (1 << len(items)) - 1
        # The conditions of items that are checked one by one: those on claims, and those on a second group.
        self._checked: dict[int, list[Condition]] = {}
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        kinds = {NOBODY}
        for number, conditions in enumerate(items):
            bit = 1 << number
            seen = set()
            for condition in conditions:
                key = (condition.about, condition.path)
                if condition.about == KIND:
                    kinds.add(condition.value)
                if condition.about == CLAIM or key in seen:
                    self._checked.setdefault(bit, []).append(condition)
                if condition.about in (SUBJECT, GROUP, CLAIM) and key not in seen:
                    seen.add(key)
                    found.setdefault(key, []).append((bit, condition.value))
        self._by_kind = {kind: _holding(items, kind) for kind in kinds}
        # A kind that no rule names.
        self._other_kind = _holding(items, "")
        self._subjects = _Table(found.pop((SUBJECT, ""), ()), every)
        self._groups = _Table(found.pop((GROUP, ""), ()), every)
        self._group_names = frozenset(self._groups.by_value)
        self._claims = [(path, _Table(required, every)) for (_, path), required in found.items()]

    def candidates(self, principal: Principal) -> int:
        """Return the bits of the items whose conditions may hold; :meth:`first` checks the others."""
        found = self._by_kind.get(principal.kind, self._other_kind)
        subjects = self._subjects
        found &= subjects.by_value.get(principal.subject, subjects.unconditional)
        if self._group_names:
            found &= self._groups.any_of(self._group_names.intersection(principal.groups))
        return found

    def first(self, principal: Principal, candidates: int) -> int | None:
        """Return the number of the first of some candidates whose conditions all hold; None if there is none."""
        if candidates.bit_count() > len(self._claims):
            for path, table in self._claims:
                candidates &= table.any_of(claim_texts(find_claim(principal.claims, path)))
        while candidates:
            bit = candidates & -candidates
            checked = self._checked.get(bit)
            if checked is None or all(condition.holds(principal) for condition in checked):
                return bit.bit_length() - 1
            candidates ^= bit
        return None


def _holding(items: Sequence[Conditions], kind: str) -> int:
    """Return the bits of the items whose conditions on the kind hold for one."""
    found = 0
    for number, conditions in enumerate(items):
        if all(condition.holds_for_kind(kind) for condition in conditions):
            found |= 1 << number
    return found
