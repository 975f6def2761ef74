"""Strict parser of untrusted JSON: duplicate names, NaN, Infinity and deep nesting are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NoReturn

#: How deep arrays and objects may be nested in each other.
MAX_DEPTH: Final = 16

#: How many brackets and braces may be opened. A set of 64 keys has fewer than 300; without a limit, a document of 256
#: KiB could block the reactor for 0.2 seconds.
MAX_CONTAINERS: Final = 1024


class StrictJsonError(ValueError):
    """The text is not an acceptable JSON object; the message is the end of a sentence: ``is not valid JSON``."""


class _TooDeep(StrictJsonError):
    def __init__(self) -> None:
        super().__init__(f"has values nested more than {MAX_DEPTH} deep")


def parse_object(data: bytes) -> dict[str, object]:
    """
    Parse a JSON object in UTF-8.

    All objects must have each name once (RFC 7515 section 4, RFC 7519 section 4): a parser that takes the first of two
    and one that takes the last would disagree about a signed claim.

    :raises StrictJsonError: the data is something else.
    """
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS:
        raise StrictJsonError(f"has more than {MAX_CONTAINERS} arrays and objects")
    try:
        # From bytes, json would accept UTF-16 and UTF-32, too.
        found = _decoder.decode(data.decode("utf-8"))
    except StrictJsonError:
        raise
    except ValueError:
        raise StrictJsonError("is not valid JSON") from None
    except RecursionError:
        raise _TooDeep from None
    if not isinstance(found, dict):
        raise StrictJsonError("is not a JSON object")
    if containers > MAX_DEPTH and _is_deeper(found, MAX_DEPTH):
        raise _TooDeep
    if b"\\u" in data:
        _check_surrogates(found)
    return found


def _is_deeper(value: object, limit: int) -> bool:
    """Return whether a value is nested deeper than a limit; level by level, so that no depth exhausts the stack."""
    level = [value]
    for _ in range(limit):
        level = [inner for outer in level for inner in _values_of(outer) if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def _values_of(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _check_surrogates(found: object) -> None:
    """
    Refuse escapes of single surrogates, which are no characters: the strings could not be written to a log.

    :raises StrictJsonError: there is one.
    """
    try:
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise StrictJsonError("has an escape that is not a character") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise StrictJsonError("has a name twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise StrictJsonError("has NaN or Infinity, which is not JSON")


_decoder: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
