"""The effective settings, rendered as TOML and as JSON."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from .conversion import KINDS
from .layers import LoadedSettings
from .sections import value_of
from .showing import concealed, in_one_line, without_secret

_ESCAPED: Final = re.compile(r'["\\\x00-\x1f\x7f]')


def as_toml(loaded: LoadedSettings) -> str:
    """
    Render a configuration file with the same settings, each with its source in a comment.

    Secrets are hidden. Settings that are not set are comments, since TOML has no value for them.
    """
    return "".join(_line(loaded, name) for name in KINDS)


def as_json(loaded: LoadedSettings) -> bytes:
    """Render the profile, the warnings, and each setting's value and source by dotted name. Secrets are hidden."""
    return msgspec.json.encode(
        {
            "profile": loaded.profile,
            "settings": {
                name: {"value": _shown_value(loaded, name), "source": _source(loaded, name)} for name in KINDS
            },
            "warnings": loaded.warnings,
        }
    )


def toml_value(value: Any) -> str:
    """Render a value in TOML's syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        return '"' + _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", value) + '"'
    return str(value)


def _line(loaded: LoadedSettings, name: str) -> str:
    value = _shown_value(loaded, name)
    source = _source(loaded, name)
    return f"# {name} is not set  # {source}\n" if value is None else f"{name} = {toml_value(value)}  # {source}\n"


def _source(loaded: LoadedSettings, name: str) -> str:
    return in_one_line(loaded.sources.get(name, "default"))


def _shown_value(loaded: LoadedSettings, name: str) -> Any:
    value = value_of(loaded.settings, name)
    # No rule has a secret, and its words would look like some: claim:author=jane.
    return value if name == "auth.rules" else _without_secrets(without_secret(name, value))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_without_secrets, value))
    return concealed(value) if isinstance(value, str) else value
