"""The rules for the audit log."""

from __future__ import annotations

from collections.abc import Iterator

from .rules import BrokenRule, SettingsWithSources
from .sections import Sections


def check_audit(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield an empty path of the audit log, one that the log has already, and an audit log that is required in vain."""
    settings = config.settings
    path = settings.audit.file
    if path is not None and not path.strip():
        yield BrokenRule("EmptyPath", "audit.file", "the path of a file, or left out")
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


def audit_warnings(settings: Sections) -> Iterator[str]:
    """Yield a warning for an audit log that has no lines."""
    if settings.audit.file is not None and settings.audit.events == "none":
        yield "audit.file is set, and audit.events is none: nothing is recorded. Set audit.events, or remove it."
