"""Warnings about unreachable rules: an earlier rule matches whatever they match, usually since two are swapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice
from typing import Final

from .conditions import ANONYMOUS, AUTHENTICATED, Condition
from .coverage import includes
from .matching import concerned_operations
from .operations import ADMIN, SUBSCRIBE
from .patterns import EVERYTHING, SUBSCRIPTIONS, Parts, PlainParts, Substitution
from .rules import Rule

#: After so many comparisons of two rules, no more are looked for.
_MAX_COMPARISONS: Final = 20_000

#: Rules with more conditions are not looked at: their subsets are too many.
_MAX_CONDITIONS: Final = 6

#: What stands for a substitution, before its text: no name has this character.
_MARK: Final = "\0"

#: The maximum of sentences about one list of rules.
_MAX_WARNINGS: Final = 20


def warnings_about(rules: Iterable[Rule]) -> tuple[str, ...]:
    """Return a sentence or two for the operator about each rule that never decides."""
    found = islice(unreachable_rules(rules), _MAX_WARNINGS)
    return tuple(
        f"{rule.where} never decides, since {cover.where} matches whatever it matches. Put it before that rule, or "
        "remove it."
        for rule, cover in found
    )


def unreachable_rules(rules: Iterable[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """
    Yield the rules that never decide, each with the rule before it that matches first.

    A rule that several others cover together is not found.
    """
    earlier: dict[frozenset[Condition], list[Rule]] = {}
    comparisons = 0
    for rule in rules:
        conditions = _implied(rule)
        for wider in _subsets(conditions):
            found = earlier.get(wider, ())
            comparisons += len(found)
            if comparisons > _MAX_COMPARISONS:
                return
            cover = next((other for other in found if _covers(other, rule)), None)
            if cover is not None:
                yield rule, cover
                break
        earlier.setdefault(frozenset(rule.conditions), []).append(rule)


def _implied(rule: Rule) -> frozenset[Condition]:
    """Return the conditions of a rule, with ``authenticated`` if one of them holds for no anonymous request."""
    conditions = set(rule.conditions)
    if any(condition.about != ANONYMOUS for condition in conditions):
        conditions.add(Condition(AUTHENTICATED))
    return frozenset(conditions)


def _subsets(conditions: frozenset[Condition]) -> Iterator[frozenset[Condition]]:
    if len(conditions) <= _MAX_CONDITIONS:
        for size in range(len(conditions) + 1):
            yield from map(frozenset, combinations(conditions, size))


def _covers(first: Rule, second: Rule) -> bool:
    """Return whether a rule matches each operation and name that another does."""
    operations = concerned_operations(second.operations, second.names)
    if not operations <= concerned_operations(first.operations, first.names):
        return False
    outer = [parts for names in first.names for parts in _plain(names, first)]
    inner = [parts for names in second.names for parts in _plain(names, second)]
    return all(any(includes(each, parts) for each in outer) for parts in inner) or operations == {ADMIN}


def _plain(parts: Parts, rule: Rule) -> Iterator[PlainParts]:
    """Yield a pattern with texts in the places of substitutions, which only stars and the same one include."""
    yield tuple(_MARK + part.text if isinstance(part, Substitution) else part for part in parts)
    if parts == EVERYTHING and SUBSCRIBE in rule.operations:
        yield SUBSCRIPTIONS
