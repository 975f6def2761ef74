"""What imports and restores do with streams that exist already."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

#: What to do with a stream that exists already: leave it, refuse the whole transfer, or replace it.
ConflictPolicy: TypeAlias = Literal["skip", "fail", "replace"]

POLICIES: Final[tuple[ConflictPolicy, ...]] = ("skip", "fail", "replace")


def check_policy(on_conflict: str) -> None:
    """
    Check that a program has given a policy that exists.

    :raises ValueError: there is no such policy.
    """
    if on_conflict not in POLICIES:
        raise ValueError(f"on_conflict must be one of {', '.join(POLICIES)}, not {on_conflict!r}.")
