"""Warnings about valid rules that are probably mistakes: values that look like lists, names with a base path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from .rules import Rule

#: The maximum of sentences about one list of rules.
_MAX_WARNINGS: Final = 20

#: The default base path of streams: names in rules begin after it.
_BASE_PATH: Final = ("v1", "stream")


def warnings_about_doubts(rules: Iterable[Rule]) -> tuple[str, ...]:
    """
    Return a sentence for the operator about each rule with a value such as ``alice,bob``, or a name with a base path.

    A value in quotes, or one with ``=`` such as ``CN=alice,O=Example``, is taken as meant: only operations are a list
    with commas.
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
        if any(parts[:2] == _BASE_PATH for parts in rule.names):
            yield (
                f"{rule.where} is about streams whose names begin with {'/'.join(_BASE_PATH)}. Names in rules are "
                "those below the base path: leave it out."
            )
