"""The audit log of a server, created from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from ..clocks import IClock
from ..config.settings import Settings
from ..identity.control import AccessControl, ListedSource
from ..startup import StartupError
from ..telemetry.audit import AuditLog, audit_file


def audit_from(settings: Settings, clock: IClock) -> AuditLog:
    """Create the audit log, whose file is not open yet. Without ``audit.file``, it counts denials only."""
    audit = settings.audit
    file = None if audit.file is None else audit_file(audit.file, clock)
    return AuditLog(clock, file, audit.events, audit.required)


def open_audit_log(audit: AuditLog, settings: Settings) -> None:
    """
    Open the file of an audit log.

    :raises StartupError: it cannot be opened.
    """
    try:
        audit.open()
    except OSError as error:
        raise StartupError(
            "validate_config",
            f"Cannot open the audit log {settings.audit.file} (audit.file): {error.strerror}. Create its directory, "
            "allow the server to write there, or choose another file.",
        ) from None


def record_access_changes(audit: AuditLog, control: AccessControl) -> None:
    """Record from now on which tokens, keys and rules are added and removed while the server runs."""
    known = _inventory(control)

    def record() -> None:
        nonlocal known
        before, known = known, _inventory(control)
        for kind, items in known.items():
            added, removed = items.keys() - before[kind].keys(), before[kind].keys() - items.keys()
            changed = [key for key in items.keys() & before[kind].keys() if items[key] != before[kind][key]]
            found = {"added": sorted(added), "removed": sorted(removed), "changed": sorted(changed)}
            if any(found.values()):
                audit.record(f"{kind}_changed", {key: value or None for key, value in found.items()})

    control.on_change(record)


def _inventory(control: AccessControl) -> Mapping[str, Mapping[str, object]]:
    """Return what there is now, without secrets: id or text -> what differs after a change."""
    found: dict[str, dict[str, object]] = {"tokens": {}, "keys": {}, "rules": {}}
    for source in control.sources:
        if isinstance(source, ListedSource):
            found[source.content] |= source.listed
    found["rules"] |= {rule.text: None for rule in control.policy.rules}
    return found
