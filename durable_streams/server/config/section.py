"""The base of all sections of settings, which checks the types of values."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from msgspec import Struct

from .showing import shown_setting


class Section(Struct, frozen=True):
    """
    A group of settings.

    :raises TypeError: a value is not of the setting's type.
    """

    def __post_init__(self) -> None:
        for name, kind in _types_of(type(self)).items():
            value = getattr(self, name)
            if not _fits(value, kind):
                raise TypeError(
                    f"{type(self).__name__}: {name} must be {_described(kind)}, not {shown_setting(name, value)}. "
                    "Settings.from_mapping() takes plain dictionaries."
                )


@cache
def _types_of(section: type[Section]) -> dict[str, Any]:
    return get_type_hints(section)


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
    if args := get_args(kind):
        return any(_fits(value, part) for part in args)
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def _described(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return "a tuple of str"
    if args := get_args(kind):
        return " or ".join(map(_described, args))
    return "None" if kind is type(None) else str(kind.__name__)
