"""Rendering of settings' values for messages and logs, with secrets hidden."""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = "***"

#: The last parts of the names of settings whose whole value is a secret.
_SECRET_SETTINGS: Final = frozenset({"dsn"})

#: The user and the password in a URL.
_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s]*(?=@)")

#: Substrings of argument names whose values are secrets.
_SECRETS: Final = "pass|pwd|secret|token|credential|private_?key|api_?key|psk|auth|cookie|signature"

#: A secret in a query ends at the next parameter; one in a string endpoint at the next unescaped colon.
_SECRET: Final = re.compile(
    rf"([?&;][\w-]*(?:{_SECRETS})[\w-]*=)[^&\s'\"]*|((?:^|(?<!\\):|\s)[\w-]*(?:{_SECRETS})[\w-]*=)(?:\\.|[^:\\])*",
    re.IGNORECASE | re.DOTALL,
)

#: Control characters, line separators and surrogates.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x80-\x9f\u2028\u2029\ud800-\udfff]")


def in_one_line(text: str) -> str:
    """Escape control characters, so that a path, name or variable cannot break a message into two lines."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def concealed(text: str) -> str:
    """Replace passwords, tokens and other likely secrets in a text by ``***``."""
    return _SECRET.sub(rf"\1\2{_HIDDEN}", _USERINFO.sub(_HIDDEN, text))


def shown(value: object) -> str:
    """Render a value for a message, with secrets hidden."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shown, value))}]"
    return repr(concealed(value)) if isinstance(value, str) else repr(value)


def shown_setting(name: str, value: object) -> str:
    """Render the value of a setting, given its name or its dotted name, for a message, with secrets hidden."""
    return shown(without_secret(name, value))


def without_secret(name: str, value: object) -> object:
    """Return the value of a setting, or ``***`` if it is set and the whole value is a secret."""
    return _HIDDEN if value and name.rpartition(".")[2] in _SECRET_SETTINGS else value
