"""Deprecated names of settings, and log filters of Rust programs. The current name overrides them within a layer."""

from __future__ import annotations

import re
from typing import Any, Final

from .conversion import convert, invalid

#: The environment variable with a log filter for all programs; used here as a deprecated name.
RUST_LOG: Final = "RUST_LOG"

#: Deprecated name -> setting. Within a layer later entries override earlier ones; the current name overrides both.
LEGACY: Final = {
    "server.port": "server.bind_address",
    "limits.max_memory_bytes": "limits.max_total_bytes",
    "server.long_poll_timeout_secs": "transport.connection.long_poll_timeout_secs",
    "server.sse_reconnect_interval_secs": "transport.connection.sse_reconnect_interval_secs",
    "tls.cert_path": "transport.tls.cert_path",
    "tls.key_path": "transport.tls.key_path",
    "log.rust_log": "observability.log_level",
    "observability.rust_log": "observability.log_level",
    RUST_LOG: "observability.log_level",
}

_FILTER_WANTED: Final = "a level (trace, debug, info, warn, error or off), or a filter like info,durable_streams=debug"

#: Log levels, from the least verbose to the most verbose.
_LEVELS: Final = ("error", "warn", "info", "debug")
_FILTER_LEVELS: Final = {
    **{level: level for level in _LEVELS},
    "trace": "debug",
    "off": "error",
    **dict(zip("012345", ("error", "error", "warn", "info", "debug", "debug"), strict=True)),
}
_PORT: Final = re.compile(r"[0-9]{1,5}")
_TARGET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_:]*")


def level_of_filter(text: str) -> str | None:
    """
    Return the level that a log filter of Rust's tracing (``info,durable_streams=debug``) sets for this server.

    :returns: None if the filter only has targets of other programs.
    :raises ValueError: the filter is malformed.
    """
    everyone: str | None = None
    ours: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        target, equals, level = (side.strip() for side in part.partition("="))
        is_ours = target.startswith("durable_streams")
        if not equals and target.lower() in _FILTER_LEVELS:
            everyone = _FILTER_LEVELS[target.lower()]
            continue
        found = _FILTER_LEVELS.get(level.lower() if equals else "trace")
        # A single unknown word is more likely a misspelt level than another program's target.
        if found is None or _TARGET.fullmatch(target) is None or not (equals or is_ours or "::" in target):
            raise ValueError(text)
        if is_ours:
            ours.append(found)
    # Several of our targets may be named. There is one log, so the most verbose level is used.
    return max(ours, key=_LEVELS.index) if ours else everyone


def convert_legacy(name: str, value: Any, source: str, is_text: bool) -> Any:
    """
    Convert the value of a deprecated name to the value of its setting; None if a log filter does not set one.

    :raises ConfigError: the value is invalid.
    """
    setting = LEGACY[name]
    if name == "server.port":
        is_number = isinstance(value, int) and not isinstance(value, bool)
        digits = str(value).strip() if is_number or is_text else ""
        if _PORT.fullmatch(digits) is None or int(digits) > 65535:
            raise invalid(name, "a port, from 0 to 65535", value, source)
        return f"0.0.0.0:{int(digits)}"
    if setting == "observability.log_level":
        try:
            return level_of_filter(value)
        except (ValueError, AttributeError):
            raise invalid(name, _FILTER_WANTED, value, source) from None
    return convert(setting, value, source, is_text, name)
