"""How a start fails: in one of its phases, in a line for whoever started it."""

from __future__ import annotations

from typing import Final

#: The phases of a start, in their order. What comes before ``open_storage`` leaves nothing behind when it fails.
PHASES: Final = (
    "load_config",
    "validate_config",
    "resolve_transport",
    "check_tls_files",
    "build_tls_context",
    "bind_listener",
    "open_storage",
    "start_server",
)


class StartupError(Exception):
    """
    The server can't start.

    :ivar phase: one of :data:`PHASES`.
    :ivar cause: a sentence or two: the setting, its value, and what to change.
    """

    def __init__(self, phase: str, cause: str) -> None:
        assert phase in PHASES
        super().__init__(f"[{phase}] {cause}")
        self.phase = phase
        self.cause = cause
