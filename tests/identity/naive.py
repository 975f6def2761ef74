"""Rules by their definition: slow, but plainly right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.principal import Principal
from tests.support.naive_patterns import pattern_matches


class NaiveRule:
    """A rule of plain parts, from which a line can be written."""

    def __init__(self, allow: bool, who: str, operations: Sequence[str], names: Sequence[str]) -> None:
        self.allow, self.who, self.operations, self.names = allow, who, operations, names

    def line(self) -> str:
        """Write the rule."""
        words = ["allow" if self.allow else "deny", self.who, ",".join(self.operations), *self.names]
        return " ".join(words)

    def matches(self, principal: Principal, operation: str, name: str) -> bool:
        """Match a request."""
        if not all(who_matches(part, principal) for part in self.who.split("&")):
            return False
        if not operation_matches(self.operations, operation):
            return False
        if operation == "admin":
            return not self.names or "**" in self.names
        return any(name_matches(pattern, principal, operation, name) for pattern in self.names)


def operation_matches(operations: Sequence[str], operation: str) -> bool:
    """Match the operation of a request."""
    return operation in operations or "all" in operations or (operation == "head" and "read" in operations)


def who_matches(condition: str, principal: Principal) -> bool:
    """Match a condition on the principal; the values of claims are texts or lists of them."""
    about, _, value = condition.partition(":")
    if about == "claim":
        path, _, value = value.partition("=")
        found = claim(principal.claims, path)
        return value in found if isinstance(found, list) else value == found
    return {
        "anyone": True,
        "authenticated": principal.kind != "anonymous",
        "anonymous": principal.kind == "anonymous",
        "subject": principal.subject == value,
        "group": value in principal.groups,
        "kind": principal.kind == value,
    }[about]


def claim(claims: Mapping[str, object], path: str) -> object:
    """Find a claim whose names have no dots."""
    found: object = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def name_matches(pattern: str, principal: Principal, operation: str, name: str) -> bool:
    """Match the name of a stream or a subscription."""
    segments = name.split("/")
    if segments[0] == "__ds":
        if pattern == "**":
            return operation == "subscribe" and len(segments) == 3 and segments[1] == "subscriptions"
        if not pattern.startswith("__ds"):
            return False
    parts = []
    for part in pattern.split("/"):
        if part.startswith("{"):
            value = principal.subject if part == "{subject}" else claim(principal.claims, part[len("{claim.") : -1])
            if not isinstance(value, str) or not value or "/" in value:
                return False
            # A value is never a star: a text that is not in any pattern or name stands for it.
            parts.append({"*": "\0one", "**": "\0any"}.get(value, value))
        else:
            parts.append(part)
    return pattern_matches(parts, segments) or (
        "\0" in "".join(parts) and pattern_matches(parts, [{"*": "\0one", "**": "\0any"}.get(s, s) for s in segments])
    )


def decide(rules: Sequence[NaiveRule], principal: Principal, operation: str, name: str) -> int | None:
    """Return the number of the first rule that matches."""
    assert operation in OPERATIONS
    return next((n for n, rule in enumerate(rules) if rule.matches(principal, operation, name)), None)
