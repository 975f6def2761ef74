"""The rules for the pages of operators: nobody may reach them by accident."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .places import is_local, is_mtls
from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import Sections
from .showing import shown

_FILE: Final = "admin.token_file"


def admin_places(settings: Sections) -> tuple[str, tuple[str, ...]]:
    """Return where the pages of operators are served: the name of the setting, and the addresses or endpoints."""
    server, admin = settings.server, settings.admin
    if admin.bind_address is not None:
        return "admin.bind_address", (admin.bind_address,)
    if server.listen:
        return "server.listen", server.listen
    return "server.bind_address", (server.bind_address,)


def remote_admin_place(settings: Sections) -> tuple[str, str] | None:
    """
    Return an address of the pages of operators that other machines can reach, with the name of its setting.

    None if there is none. Endpoints that are not known to be local are counted as such addresses.
    """
    name, places = admin_places(settings)
    return next(((name, place) for place in places if not is_local(place)), None)


def check_admin(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield an empty path of the file of tokens, or a file that nothing reads."""
    admin = config.settings.admin
    yield from check_path(config, _FILE, "the path of a file with a bearer token on each line")
    if admin.token_file is not None and not admin.enabled and not _protects_metrics(config.settings):
        yield BrokenRule(
            "AdminTokenFileRequiresAdmin",
            _FILE,
            f"left out, or admin.enabled set to true, while {config.describe('admin.enabled')}",
        )


def check_admin_exposure(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """
    Yield a missing file of tokens if other machines can reach the pages of operators.

    A listener that requires client certificates needs no tokens: whoever has a certificate may change all streams. With
    methods of authentication, the rules decide who may use the pages.
    """
    settings = config.settings
    if not settings.admin.enabled or settings.admin.token_file is not None or settings.auth.methods:
        return
    name, places = admin_places(settings)
    requires_certificates = name == "server.bind_address" and settings.transport.mode == "mtls"
    for place in places:
        if not requires_certificates and not is_local(place) and not is_mtls(place):
            where = config.describe(name) if name != "server.listen" else f"{name} has {shown(place)}"
            yield BrokenRule(
                "AdminRequiresTokenFile",
                _FILE,
                "the path of a file with a bearer token on each line, or admin.bind_address a loopback address such "
                f"as 127.0.0.1:4438, while {config.describe('admin.enabled')} and {where}, which other machines can "
                "reach",
            )
            return


def _protects_metrics(settings: Sections) -> bool:
    """Return whether the metrics need a token of the file, or the right to use them, also without other pages."""
    return bool(settings.auth.methods) and settings.admin.bind_address is None and settings.observability.metrics
