"""Explanation of a decision for operators: why each rule matches the request or does not."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from ..protocol.names import RESERVED_SEGMENT
from .conditions import CLAIM, Condition
from .coverage import includes, overlaps
from .matching import TargetIndex, concerned_operations, patterns_for
from .operations import ADMIN
from .patterns import Substitution, parse_plain, substituted
from .policy import Policy
from .principal import Principal
from .rules import Rule


class RuleResult(Struct, frozen=True):
    """
    What one rule means for a request.

    :ivar rule: the rule, after its source and number.
    :ivar matches: whether it matches.
    :ivar reason: a sentence: why it does not match, or what it decides.
    """

    rule: str
    matches: bool
    reason: str


def explain(
    policy: Policy, principal: Principal, operation: str, name: str, is_pattern: bool = False
) -> Iterator[RuleResult]:
    """
    Yield what each rule means for a request, up to the one that decides.

    :param is_pattern: whether the name is a pattern, as of subscriptions. A rule that allows must include all of its
        names then, and a rule that denies some of them.
    :raises InvalidName: the pattern is invalid.
    """
    # What the rules decide without the grants.
    decide = policy.covers if is_pattern else policy.decide
    decision = decide(replace(principal, grants=None), operation, name)
    for rule in policy.rules:
        reason = _difference(rule, principal, operation)
        if reason is None and operation != ADMIN:
            reason = (_pattern_difference if is_pattern else _name_difference)(rule, principal, operation, name)
        text = f"{rule.where}: {rule.text}"
        if reason is None and text != decision.rule:
            reason = "Rules before it allow all names that it denies."
        yield RuleResult(text, reason is None, reason or decision.reason)
        if reason is None:
            return


def _difference(rule: Rule, principal: Principal, operation: str) -> str | None:
    """Return why a rule does not concern an operation of a principal, or None if it does."""
    if operation not in rule.operations:
        return f"It is not about {operation}."
    if operation not in concerned_operations(rule.operations, rule.names):
        return "Its names are not **, so it is not about admin."
    failing = [_text(condition) for condition in rule.conditions if not condition.holds(principal)]
    return f"WHO does not hold: {', '.join(failing)}." if failing else None


def _name_difference(rule: Rule, principal: Principal, operation: str, name: str) -> str | None:
    """Return why the patterns of a rule do not match a name, or None if one does."""
    if TargetIndex([(rule.operations, rule.names)]).matching(principal, operation, name):
        return None
    if name.partition("/")[0] == RESERVED_SEGMENT:
        return f"No NAME matches: of those that do not begin with {RESERVED_SEGMENT}, only ** does."
    return f"No NAME matches.{_missing_values(rule, principal)}"


def _pattern_difference(rule: Rule, principal: Principal, operation: str, pattern: str) -> str | None:
    """Return why the patterns of a rule do not decide about a pattern, or None if they do."""
    inner = parse_plain(pattern)
    outer = patterns_for(rule.names, operation, principal)
    if any((includes if rule.allow else overlaps)(parts, inner) for parts in outer):
        return None
    found = "No NAME includes all names of the pattern." if rule.allow else "No NAME matches a name of the pattern."
    return found + _missing_values(rule, principal)


def _missing_values(rule: Rule, principal: Principal) -> str:
    """Return a sentence about the substitutions that can match nothing, or nothing."""
    texts = [
        part.text
        for parts in rule.names
        for part in parts
        if isinstance(part, Substitution) and substituted((part,), principal) is None
    ]
    if not texts:
        return ""
    return f" The principal has no value for {', '.join(dict.fromkeys(texts))}: it must be text without a slash."


def _text(condition: Condition) -> str:
    """Return a condition as it is written in a rule."""
    if condition.about == CLAIM:
        return f"claim:{condition.path}={condition.value}"
    return f"{condition.about}:{condition.value}" if condition.value else condition.about
