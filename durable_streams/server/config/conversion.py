"""Conversion of a value from a layer to the type of its setting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from msgspec import Struct

from .choices import CHOICES, words_of
from .sections import Sections
from .showing import shown_setting
from .validation import ConfigError

_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")

#: Control characters and surrogates: no path, address or name contains them, and logs and headers must not.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def _kinds(group: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(group).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from _kinds(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, get_args(kind)[0] if isinstance(kind, UnionType) else kind


#: Dotted name of a setting -> its type. For a setting that may be None, the other type.
KINDS: Final[dict[str, Any]] = dict(_kinds(Sections))


class _WrongValue(Exception):
    """A value, or an item of a list, has the wrong type or spelling."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.value = value


def convert(name: str, value: Any, source: str, is_text: bool, written: str | None = None) -> Any:
    """
    Convert a value to the type of a setting.

    :param source: where the value comes from, for the message.
    :param is_text: whether the source has text only, as the environment: numbers, lists and ``true`` are parsed, and
        words may be in any case.
    :param written: the name under which the setting was written, if that is a deprecated name.
    :raises ConfigError: the value is not valid for the setting.
    """
    kind = KINDS[name]
    try:
        if kind is int:
            return _number(value, is_text)
        if kind is bool:
            return _switch(value, is_text)
        if kind is str:
            return _text(name, value, is_text)
        return _texts(name, value, is_text)
    except _WrongValue as error:
        raise invalid(written or name, error.wanted, error.value, source) from None


def invalid(name: str, wanted: str, value: object, source: str) -> ConfigError:
    """Return the error for a value that is invalid whatever the other settings are."""
    return ConfigError(
        f"{name} must be {wanted}; {source} sets it to {shown_setting(name, value)}.",
        rule="InvalidValue",
        phase="load_config",
    )


def _number(value: Any, is_text: bool) -> int:
    if is_text and isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    raise _WrongValue("a whole number of 18 digits at the most", value)


def _switch(value: Any, is_text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if is_text and isinstance(value, str) and value.strip() in ("true", "false"):
        return value.strip() == "true"
    raise _WrongValue("true or false", value)


def _text(name: str, value: Any, is_text: bool) -> str:
    words = CHOICES.get(name)
    if not isinstance(value, str):
        raise _WrongValue("a text in quotes" if words is None else f"a text in quotes, one of {words_of(name)}", value)
    text = value.strip()
    if words is not None:
        word = text.lower() if is_text else text
        if word not in words:
            raise _WrongValue(words_of(name), value)
        return words[word]
    if _UNPRINTABLE.search(text):
        raise _WrongValue("a text without control characters", value)
    return text


def _texts(name: str, value: Any, is_text: bool) -> tuple[str, ...]:
    items = _items(name, value) if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise _WrongValue("a list of texts", value)
    made = [_text(name, item, is_text) for item in items]
    # Two spellings of one word are one item. Other repetitions are kept.
    return tuple(dict.fromkeys(made) if name in CHOICES else made)


def _items(name: str, text: str) -> list[str]:
    """Return the items of a list that is written as a text."""
    # Rules have commas in them. Lines stay what they are, so that messages have their numbers.
    items = text.strip().splitlines() if name == "auth.rules" else filter(None, map(str.strip, text.split(",")))
    return list(items)
