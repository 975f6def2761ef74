"""The phases of the server's start, and the error with which a phase fails."""

from __future__ import annotations

from typing import Final

#: The phases of a start, in order. A failure before ``open_storage`` leaves nothing behind on disk.
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
    The server cannot start.

    :ivar phase: one of :data:`PHASES`.
    :ivar cause: a sentence or two: the setting, its value, and what to change.
    """

    def __init__(self, phase: str, cause: str) -> None:
        assert phase in PHASES
        super().__init__(f"[{phase}] {cause}")
        self.phase = phase
        self.cause = cause
