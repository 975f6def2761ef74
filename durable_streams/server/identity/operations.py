"""The operations that rules and grants allow or deny."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

CREATE: Final = "create"
APPEND: Final = "append"
READ: Final = "read"
HEAD: Final = "head"
CLOSE: Final = "close"
DELETE: Final = "delete"
FORK_FROM: Final = "fork-from"
SUBSCRIBE: Final = "subscribe"
ADMIN: Final = "admin"

#: All operations, in the order of the documentation.
OPERATIONS: Final = (CREATE, APPEND, READ, HEAD, CLOSE, DELETE, FORK_FROM, SUBSCRIBE, ADMIN)

#: What stands for all operations in a rule or a grant.
ALL: Final = "all"


def expand(operations: Iterable[str]) -> frozenset[str]:
    """
    Return the operations that those of a rule or a grant include: ``read`` includes ``head``, ``all`` every one.

    :raises ValueError: one is unknown; the message names it and the known ones.
    """
    found: set[str] = set()
    for operation in operations:
        if operation == ALL:
            found.update(OPERATIONS)
        elif operation not in OPERATIONS:
            raise ValueError(f"There is no operation {operation!r}. Write some of {', '.join(OPERATIONS)}, or {ALL}.")
        else:
            found.add(operation)
    if READ in found:
        found.add(HEAD)
    return frozenset(found)
