"""The rules for the audit log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .auth_rules import has_access_control
from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import Sections

#: A rule that allows everybody what an open server does, but not the pages for operators.
_OPEN: Final = "allow anyone create,append,close,read,delete,fork-from,subscribe **"


def check_audit(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield an empty path, the path of the log file, and an audit log that is required but has no file or events."""
    settings = config.settings
    path = settings.audit.file
    yield from check_path(config, "audit.file")
    if path is not None and path == settings.observability.log_file:
        yield BrokenRule(
            "AuditFileConflictsWithLogFile",
            "audit.file",
            f"another file while {config.describe('observability.log_file')}, since its lines have a form of their own",
        )
    if settings.audit.required and (path is None or settings.audit.events == "none"):
        name = "audit.file" if path is None else "audit.events"
        yield BrokenRule(
            "RequiredAuditRequiresFile",
            name,
            f"{'the path of a file' if path is None else 'denied, changes or all'} while "
            f"{config.describe('audit.required')}",
        )


def check_audit_access(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield an audit log of a server that identifies nobody, and decides nothing that could be recorded."""
    settings = config.settings
    if settings.audit.file is not None and not has_access_control(settings):
        yield BrokenRule(
            "AuditRequiresAccessControl",
            "audit.file",
            "left out, or auth.methods and auth.rules set; or, if everybody may use all streams, auth.rules set to "
            f"['{_OPEN}']",
        )


def audit_warnings(settings: Sections) -> Iterator[str]:
    """Yield a warning for an audit log that has no lines."""
    if settings.audit.file is not None and settings.audit.events == "none":
        yield "audit.file is set and audit.events is none: nothing is recorded. Set audit.events, or remove audit.file."
