"""The claim ``ds_streams``: a list that narrows what the token's principal may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NoReturn

from ...errors import InvalidName
from ..operations import expand
from ..patterns import parse_plain
from ..principal import Grant
from .errors import TokenRefused

#: The claim with the list.
CLAIM: Final = "ds_streams"

_MEMBERS: Final = frozenset({"operations", "names"})


def grants_of(claims: Mapping[str, object]) -> tuple[Grant, ...] | None:
    """
    Return the grants of a token; None if it has no list, and then the rules alone decide.

    A list that is not understood as a whole could have been meant to narrow more, so the token is refused.

    :raises TokenRefused: the claim is not a list of objects with ``operations``, a list of operations, and ``names``, a
        pattern; or an object has other members.
    """
    if CLAIM not in claims:
        return None
    found = claims[CLAIM]
    if not isinstance(found, list):
        _refuse("is not a list")
    return tuple(map(_grant, found))


def _grant(item: object) -> Grant:
    if not isinstance(item, dict) or item.keys() != _MEMBERS:
        _refuse("has an item that is not an object with operations and names")
    operations, pattern = item["operations"], item["names"]
    if not isinstance(operations, list) or not all(isinstance(each, str) for each in operations):
        _refuse("has operations that are not a list of strings")
    if not isinstance(pattern, str):
        _refuse("has names that are not a string")
    try:
        expanded = expand(operations)
    except ValueError:
        _refuse("has an unknown operation")
    try:
        parse_plain(pattern)
    except InvalidName:
        _refuse("has names that are not a pattern")
    return Grant(expanded, pattern)


def _refuse(reason: str) -> NoReturn:
    raise TokenRefused(f"The {CLAIM} of the token {reason}.")
