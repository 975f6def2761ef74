"""How values of settings are shown to people, without the secrets that some may hold."""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = "***"

#: The user and the password in a URL.
_USERINFO: Final = re.compile(r"(?<=://)[^/?#\s]*(?=@)")

#: Parts of the names of arguments that hold secrets.
_SECRETS: Final = "pass|pwd|secret|token|credential|private_?key|api_?key|psk|auth|cookie|signature"

#: A secret in a query: up to the next parameter. A secret in a string endpoint: up to the next colon that has no
#: backslash before it.
_SECRET: Final = re.compile(
    rf"([?&;][\w-]*(?:{_SECRETS})[\w-]*=)[^&\s'\"]*|((?:^|(?<!\\):|\s)[\w-]*(?:{_SECRETS})[\w-]*=)(?:\\.|[^:\\])*",
    re.IGNORECASE | re.DOTALL,
)

#: What would break a line, or can't be written at all.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x80-\x9f\u2028\u2029\ud800-\udfff]")


def in_one_line(text: str) -> str:
    """Escape what would break a message's line: paths, names and variables may have anything in them."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def concealed(text: str) -> str:
    """Hide what may be a secret in a text."""
    return _SECRET.sub(rf"\1\2{_HIDDEN}", _USERINFO.sub(_HIDDEN, text))


def shown(value: object) -> str:
    """Write a value for a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(shown, value))}]"
    return repr(concealed(value)) if isinstance(value, str) else repr(value)
