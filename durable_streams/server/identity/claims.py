"""Claims of principals: how rules find one by its path, and which texts its value equals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

#: Claims nested deeper are not found. A path cannot have more dots than this.
MAX_DEPTH: Final = 16

#: Numbers of this magnitude or more, infinities and NaN equal no text.
_LARGEST: Final = 10**300


def find_claim(claims: Mapping[str, object], path: str) -> object:
    """
    Return the value of a claim, or None if there is none.

    :param path: the names of the claim and of what is nested in it, joined by dots. If several claims could be meant,
        because names have dots themselves, the one with the longest name is taken.
    """
    if path in claims:
        return claims[path]
    found: object = claims
    rest = path
    while isinstance(found, Mapping):
        name = rest
        while name not in found:
            name, dot, _ = name.rpartition(".")
            if not dot:
                return None
        found = found[name]
        if len(name) == len(rest):
            return found
        rest = rest[len(name) + 1 :]
    return None


def claim_texts(value: object) -> tuple[str, ...]:
    """
    Return the texts that the value of a claim equals in a rule.

    A text equals itself, a number or boolean what JSON writes for it, and a list what any of its values equals. Null,
    objects, lists inside of lists and numbers of more than 300 digits equal nothing.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return tuple(text for item in value if (text := _scalar_text(item)) is not None)
    text = _scalar_text(value)
    return () if text is None else (text,)


def _scalar_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if not isinstance(value, (bool, int, float)) or not -_LARGEST < value < _LARGEST:
        return None
    return msgspec.json.encode(value).decode()
