"""Names that settings had, and the log filter of other servers: they still count, below the names that are in use."""

from __future__ import annotations

import re
from typing import Any, Final

from .conversion import convert, invalid

#: The variable with a log filter that is not only meant for this server. It stands for a setting's name here.
RUST_LOG: Final = "RUST_LOG"

#: What stands for which setting. Where a layer has two for one, the later in this list wins, and the setting over both.
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

#: From what says the least to what says the most.
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
    Read a log filter of Rust's tracing: levels, and targets with levels, divided by commas.

    :return: the level that it gives this server; None when it speaks of others only.
    :raises ValueError: it can't be understood.
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
        # A single word that is no level is rather a level written wrong than the name of another program's part.
        if found is None or _TARGET.fullmatch(target) is None or not (equals or is_ours or "::" in target):
            raise ValueError(text)
        if is_ours:
            ours.append(found)
    # More than one of our parts may be named. There is one log, so that the one that says most decides.
    return max(ours, key=_LEVELS.index) if ours else everyone


def modern(name: str, value: Any, source: str, is_text: bool) -> Any:
    """
    Make of the value of a legacy name the value of its setting; None when it says nothing of it.

    :raises ConfigError: it can't be that.
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
