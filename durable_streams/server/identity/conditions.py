"""The conditions of rules on the principal, and an index of rules by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
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
        if self.about == KIND:
            return principal.kind == self.value
        return (principal.kind == NOBODY) == (self.about == ANONYMOUS)


#: The conditions of a rule, all of which must hold; none for anyone.
Conditions: TypeAlias = tuple[Condition, ...]


class _Table:
    """
    Index of items by the value that they require of one attribute of the principal, such as its subject.

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
        frequency = Counter(condition for conditions in items for condition in conditions)
        # Number of an item -> its conditions that are checked one by one: on claims, and on a second group.
        self._checked: dict[int, list[Condition]] = {}
        found: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for number, conditions in enumerate(items):
            indexed = set()
            # Of several groups, the rarest is in the index: it leaves the fewest items to check.
            for condition in sorted(conditions, key=frequency.__getitem__):
                key = (condition.about, condition.path)
                if condition.about == CLAIM or key in indexed:
                    self._checked.setdefault(number, []).append(condition)
                if key not in indexed:
                    indexed.add(key)
                    found.setdefault(key, []).append((1 << number, condition.value))
        authenticated = _union(found.pop((AUTHENTICATED, ""), ()))
        anonymous = _union(found.pop((ANONYMOUS, ""), ()))
        self._kinds = _Table(found.pop((KIND, ""), ()), every & ~anonymous)
        # Requests without credentials are of no kind that a rule can name.
        self._kinds.by_value[NOBODY] = self._kinds.unconditional & ~authenticated | anonymous
        self._subjects = _Table(found.pop((SUBJECT, ""), ()), every)
        self._groups = _Table(found.pop((GROUP, ""), ()), every)
        self._group_names = frozenset(self._groups.by_value)
        self._claims = [(path, _Table(required, every)) for (_, path), required in found.items()]

    def candidates(self, principal: Principal) -> int:
        """Return the bits of the items whose conditions may hold; :meth:`first` checks the others."""
        kinds, subjects = self._kinds, self._subjects
        found = kinds.by_value.get(principal.kind, kinds.unconditional)
        found &= subjects.by_value.get(principal.subject, subjects.unconditional)
        if self._group_names:
            found &= self._groups.any_of(self._group_names.intersection(principal.groups))
        return found

    def first(self, principal: Principal, candidates: int) -> int | None:
        """Return the number of the first of some candidates whose conditions all hold; None if there is none."""
        return self._first(principal, self._by_claims(principal, candidates))

    def holding(self, principal: Principal, candidates: int) -> Iterator[int]:
        """Yield the numbers of all of some candidates whose conditions hold, in order."""
        candidates = self._by_claims(principal, candidates)
        while (number := self._first(principal, candidates)) is not None:
            yield number
            candidates &= -2 << number

    def _by_claims(self, principal: Principal, candidates: int) -> int:
        """Return the candidates whose conditions on claims may hold, if there are enough of them for a look at each."""
        if candidates.bit_count() > len(self._claims):
            for path, table in self._claims:
                candidates &= table.any_of(claim_texts(find_claim(principal.claims, path)))
        return candidates

    def _first(self, principal: Principal, candidates: int) -> int | None:
        while candidates:
            bit = candidates & -candidates
            number = bit.bit_length() - 1
            checked = self._checked.get(number)
            if checked is None or all(condition.holds(principal) for condition in checked):
                return number
            candidates ^= bit
        return None


def _union(required: Iterable[tuple[int, str]]) -> int:
    """Return the bits of all items that have a condition."""
    found = 0
    for bit, _ in required:
        found |= bit
    return found
