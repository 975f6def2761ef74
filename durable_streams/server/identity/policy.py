"""The policy: rules in order, of which the first that matches decides whether an operation is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..errors import InvalidName
from .conditions import ConditionIndex
from .coverage import Comparison, TooManyComparisons
from .doubtful import warnings_about_doubts
from .grants import CompiledGrants, granted_targets
from .matching import TargetIndex, patterns_for
from .operations import ADMIN, expand
from .patterns import PlainParts, parse_plain
from .principal import SIGNED_URL, Grant, Principal
from .rules import MAX_CLAIMS, MAX_RULES, Rule, RuleError, claims_of, parse_rule
from .unreachable import warnings_about


class Decision(Struct, frozen=True):
    """
    Whether a principal may do something, and why.

    :ivar allowed: whether it may.
    :ivar rule: the rule that decided, after its source and number: ``auth.rules 3: allow ...``. None if no rule did.
    :ivar public: whether the rule lets shared caches keep what is read.
    :ivar reason: a sentence for operators. It is not for the client: it may name what the client may not know.
    """

    allowed: bool
    rule: str | None
    public: bool
    reason: str


NO_RULE: Final = Decision(False, None, False, "No rule matches, and what no rule allows is denied.")
NOT_GRANTED: Final = Decision(
    False, None, False, "The rules allow it, but the credentials carry a list of grants that does not include it."
)
NOT_COMPARED: Final = Decision(
    False, None, False, "There are too many rules about the names of the pattern to compare it with each."
)
GRANTED: Final = Decision(True, None, False, "The signed URL grants it, and no rule denies it.")


class Policy:
    """
    Rules in order. The first that matches the principal, the operation and the name decides; without one it is denied.

    A policy is immutable. A decision costs about the same for one rule and for hundreds: see :mod:`.matching`.

    :ivar rules: the rules, in order.
    :ivar warnings: sentences for the operator about rules that are probably a mistake, such as one that never decides.
    """

    def __init__(self, rules: Iterable[Rule] = (), warnings: tuple[str, ...] = ()) -> None:
        self.rules: Final = tuple(rules)
        self.warnings: Final = warnings
        self._who = ConditionIndex([rule.conditions for rule in self.rules])
        self._what = TargetIndex([(rule.operations, rule.names) for rule in self.rules])
        self._decisions = [_decision(rule) for rule in self.rules]
        self._grants = CompiledGrants()

    def decide(self, principal: Principal, operation: str, name: str) -> Decision:
        """
        Return whether a principal may do an operation on a name.

        :param operation: one of :data:`.operations.OPERATIONS`.
        :param name: the decoded name of a stream, or ``__ds/subscriptions/ID``. It is ignored for ``admin``.
        :raises KeyError: there is no such operation.
        """
        who = self._who
        found = self._what.matching(principal, operation, name, who.candidates(principal))
        first = who.first(principal, found) if found else None
        decision = NO_RULE if first is None else self._decisions[first]
        if principal.grants is None:
            return decision
        return _narrowed(principal, decision, self._grants.allow(principal, operation, name))

    def covers(self, principal: Principal, operation: str, pattern: str) -> Decision:
        """
        Return whether a principal may do an operation on every name that a pattern matches.

        The result is on the safe side: it is allowed only if a single rule, and a single grant, includes the whole
        pattern, and no rule before denies a part of it. After :data:`.coverage.MAX_COMPARISONS` it is denied.

        :param pattern: a pattern as of subscriptions, without substitutions. It matches reserved names only if it
            begins with ``__ds``. It is ignored for ``admin``.
        :raises ValueError: there is no such operation.
        """
        if operation == ADMIN:
            return self.decide(principal, operation, "")
        try:
            inner = parse_plain(pattern)
        except InvalidName as error:
            return Decision(False, None, False, f"The pattern cannot be compared with the rules: {error}")
        try:
            decision = self._first_covering(principal, operation, inner)
            if principal.grants is None:
                return decision
            return _narrowed(principal, decision, _is_granted(principal.grants, operation, inner, principal))
        except TooManyComparisons:
            return NOT_COMPARED

    def _first_covering(self, principal: Principal, operation: str, inner: PlainParts) -> Decision:
        """
        Return the decision of the rules alone about all names of a pattern.

        :raises TooManyComparisons: they have not decided about it.
        """
        expand((operation,))
        compared = Comparison(inner)
        who = self._who
        for number in who.holding(principal, self._what.concerned(operation) & who.candidates(principal)):
            rule, decision = self.rules[number], self._decisions[number]
            patterns = patterns_for(rule.names, operation, principal)
            if not rule.allow:
                if compared.is_concerned(patterns):
                    return replace(decision, reason="This rule denies some or all names of the pattern.")
            elif compared.is_included(patterns):
                return replace(decision, reason="This rule allows all names of the pattern.")
            else:
                compared.allow(patterns)
        return NO_RULE


def _is_granted(grants: Iterable[Grant], operation: str, inner: PlainParts, principal: Principal) -> bool:
    """
    Return whether one of a principal's grants includes an operation on all names of a pattern.

    :raises TooManyComparisons: that was not found out.
    """
    return Comparison(inner).is_included(
        outer
        for operations, names in granted_targets(grants)
        if operation in operations
        for outer in patterns_for(names, operation, principal)
    )


def _decision(rule: Rule) -> Decision:
    """Return the decision of the requests that a rule matches first."""
    reason = f"This is the first rule that matches, and it {'allows' if rule.allow else 'denies'} it."
    return Decision(rule.allow, f"{rule.where}: {rule.text}", rule.public, reason)


def _narrowed(principal: Principal, decision: Decision, granted: bool) -> Decision:
    """Return a decision of the rules as the grants of the principal's credentials narrow it."""
    if decision.allowed:
        return decision if granted else NOT_GRANTED
    if granted and decision is NO_RULE and principal.kind == SIGNED_URL:
        return GRANTED
    return decision


def parse_rules(lines: Iterable[str], source: str) -> Policy:
    """
    Compile rules, one a line. Empty lines, and what follows a word that begins with #, are ignored.

    :param source: the setting or the file that has them, for errors and the audit log.
    :raises RuleError: a line is no rule, or there are too many rules or claims.
    """
    rules: list[Rule] = []
    claims: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            rule = parse_rule(line.removeprefix("\ufeff") if number == 1 else line, f"{source} {number}")
        except ValueError as error:
            raise RuleError(source, number, str(error)) from None
        if rule is not None:
            rules.append(rule)
            claims |= claims_of(rule)
        if len(claims) > MAX_CLAIMS:
            raise RuleError(source, number, f"The rules name more than {MAX_CLAIMS} different claims. Use fewer.")
        if len(rules) > MAX_RULES:
            raise RuleError(source, number, f"There are more than {MAX_RULES} rules. Join some, by patterns or groups.")
    return Policy(rules, warnings_about(rules) + warnings_about_doubts(rules))
