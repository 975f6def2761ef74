"""Patterns of names by their definition, as a reference for tests."""

from __future__ import annotations

from collections.abc import Sequence


def pattern_matches(pattern: Sequence[str], name: Sequence[str]) -> bool:
    """Match the segments of a pattern with those of a name, reserved or not: exponential, but plainly right."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(pattern_matches(pattern[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and pattern[0] in ("*", name[0]) and pattern_matches(pattern[1:], name[1:])
