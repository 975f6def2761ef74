"""Values in rules that look like lists: a comma separates operations, and is part of the value of a condition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from .rules import Rule

#: The maximum of sentences about one list of rules.
_MAX_WARNINGS: Final = 20


def warnings_about_lists(rules: Iterable[Rule]) -> tuple[str, ...]:
    """
    Return a sentence for the operator about each rule with a value such as ``alice,bob``.

    A value in quotes, or one with ``=`` such as ``CN=alice,O=Example``, is taken as meant.
    """
    return tuple(islice(_warnings(rules), _MAX_WARNINGS))


def _warnings(rules: Iterable[Rule]) -> Iterator[str]:
    for rule in rules:
        for condition in rule.conditions:
            if "," in condition.value and "=" not in condition.value and '"' not in rule.text:
                yield (
                    f"{rule.where} is about one {condition.about} whose value is {condition.value}, with the comma. If "
                    "several are meant, write a rule for each; if not, write the value in double quotes."
                )
