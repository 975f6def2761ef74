"""What a layer says of a setting becomes a value of the setting's type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import UnionType
from typing import Any, Final, get_args, get_type_hints

from msgspec import Struct

from .choices import CHOICES, words_of
from .sections import Sections
from .showing import shown
from .validation import ConfigError

_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")

#: What is in no path, address or name, and what a log or a header had better not repeat.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def _kinds(group: type[Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, kind in get_type_hints(group).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from _kinds(kind, f"{prefix}{name}.")
        else:
            yield prefix + name, get_args(kind)[0] if isinstance(kind, UnionType) else kind


#: The type of each setting by its dotted name, without the None of those that may be unset.
KINDS: Final[dict[str, Any]] = dict(_kinds(Sections))


class _Unfit(Exception):
    """A value, or a part of one, is not what is wanted."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(wanted)
        self.wanted = wanted
        self.value = value


def convert(name: str, value: Any, source: str, is_text: bool, written: str | None = None) -> Any:
    """
    Make of a value what a setting has.

    :param source: where the value comes from, for the message.
    :param is_text: it comes from where there is only text: numbers, lists and ``true`` are written in it, and words
        may be in any case.
    :param written: the name by which the setting was called, if that is another.
    :raises ConfigError: it can't be that.
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
    except _Unfit as unfit:
        raise invalid(written or name, unfit.wanted, unfit.value, source) from None


def invalid(name: str, wanted: str, value: object, source: str) -> ConfigError:
    """Say that a setting can't have a value at all, whatever the others are."""
    return ConfigError(
        f"{name} must be {wanted}; {source} sets it to {shown(value)}.", rule="InvalidValue", phase="load_config"
    )


def _number(value: Any, is_text: bool) -> int:
    if is_text and isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return value
    raise _Unfit("a whole number of 18 digits at the most", value)


def _switch(value: Any, is_text: bool) -> bool:
    if isinstance(value, bool):
        return value
    if is_text and isinstance(value, str) and value.strip() in ("true", "false"):
        return value.strip() == "true"
    raise _Unfit("true or false", value)


def _text(name: str, value: Any, is_text: bool) -> str:
    words = CHOICES.get(name)
    if not isinstance(value, str):
        raise _Unfit("a text in quotes" if words is None else f"a text in quotes, one of {words_of(name)}", value)
    text = value.strip()
    if words is not None:
        word = text.lower() if is_text else text
        if word not in words:
            raise _Unfit(words_of(name), value)
        return words[word]
    if _UNPRINTABLE.search(text):
        raise _Unfit("a text without control characters", value)
    return text


def _texts(name: str, value: Any, is_text: bool) -> tuple[str, ...]:
    items = [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, str) for item in items):
        raise _Unfit("a list of texts", value)
    made = [_text(name, item, is_text) for item in items]
    # Two names for one word are one word. Other repetitions are left as they are.
    return tuple(dict.fromkeys(made) if name in CHOICES else made)
