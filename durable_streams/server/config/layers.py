"""The layers of settings: defaults, a profile, files, the environment, the command line. Later layers override."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

from msgspec import Struct

from .conversion import KINDS, convert
from .credentials import resolve_credentials
from .legacy import LEGACY, RUST_LOG, convert_legacy
from .rules import is_production
from .sections import Sections
from .validation import ConfigError, validate, warnings_about

PREFIX: Final = "DS_"

#: The source of settings that an embedding program passes to :func:`settings_from_mapping`.
THE_PROGRAM: Final = "the program"

#: The default folder of ``default.toml``, ``local.toml`` and the profiles' files.
CONFIG_DIR: Final = "/etc/durable-streams"

_PROD: Final[dict[str, Any]] = {
    "limits.max_total_bytes": 536_870_912,
    "limits.max_stream_bytes": 268_435_456,
    "storage.mode": "file-durable",
    "storage.data_dir": "/var/lib/durable-streams",
    "auth.allow_anonymous": False,
}
_BOTH_VERSIONS: Final[dict[str, Any]] = {
    "transport.http.versions": ("http1", "http2"),
    "transport.tls.alpn_protocols": ("h2", "http/1.1"),
}

#: What a built-in profile sets, by dotted name.
PROFILES: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "dev": {
        "server.bind_address": "127.0.0.1:4437",
        "observability.log_level": "debug",
        "observability.access_log": "all",
    },
    # Plain HTTP: reachable only for a proxy on the same machine.
    "prod": {"server.bind_address": "127.0.0.1:4437", **_PROD},
    "prod-tls": {**_PROD, "transport.mode": "tls", **_BOTH_VERSIONS},
    "prod-mtls": {
        **_PROD,
        "transport.mode": "mtls",
        **_BOTH_VERSIONS,
        "auth.methods": ("certificate",),
        "auth.rules": ("allow authenticated all **",),
    },
}

_PROFILE_NAME: Final = re.compile(r"[a-z0-9_-]+")

_UNREADABLE: Final = "Cannot read the configuration file {}: {}."

_VERSIONS: Final = "transport.http.versions"
_ALPN: Final = "transport.tls.alpn_protocols"
_RULES: Final = "auth.rules"

#: The settings that are applied first within a layer: deprecated names, so that the current name overrides them, and
#: the versions of HTTP, so that they do not reset ``alpn_protocols`` of the same layer.
_FIRST: Final = {name: place for place, name in enumerate([*LEGACY, _VERSIONS])}


class LoadedSettings(Struct, frozen=True):
    """
    The settings that result from all layers.

    :ivar profile: the name of the profile.
    :ivar sources: dotted name -> the layer that set it; settings that no layer set are missing.
    :ivar warnings: settings that are valid but probably a mistake, or without effect; a sentence or two each.
    """

    settings: Sections
    profile: str
    sources: dict[str, str]
    warnings: tuple[str, ...] = ()


class _Entry(NamedTuple):
    """The value that a layer has for one setting; ``is_text`` if the layer has text only, as the environment."""

    name: str
    value: Any
    source: str
    is_text: bool = False


def load(
    profile: str | None,
    config_file: str | None,
    environment: Mapping[str, str],
    config_dir: str | None = None,
    listen: Sequence[str] = (),
    binds_addresses: bool = True,
) -> LoadedSettings:
    """
    Read all layers, merge them, and validate the result.

    :param profile: the name of one of :data:`PROFILES` or of a file in the folder, in any case; None or empty for
        ``default``.
    :param config_file: the path of a TOML file.
    :param config_dir: the folder of the other files; None for :data:`CONFIG_DIR`, which need not exist.
    :param listen: endpoints from the command line.
    :param binds_addresses: whether the server listens on the addresses in the settings, as the daemon does.
    :raises ConfigError: a layer cannot be read, has an unknown name or an invalid value, or the result breaks a rule.
    """
    loaded = read_layers(profile, config_file, environment, config_dir, listen)
    validate(loaded.settings, loaded.sources, loaded.profile, binds_addresses)
    warnings = (*loaded.warnings, *warnings_about(loaded.settings, loaded.sources, loaded.profile))
    return LoadedSettings(loaded.settings, loaded.profile, loaded.sources, warnings)


def settings_from_mapping(values: Mapping[str, Any]) -> Sections:
    """
    Return the validated settings of a dictionary, which may be nested or have dotted names.

    :raises ConfigError: a name is unknown, a value is invalid, or the settings break a rule.
    """
    layers = _Layers()
    layers.add(_Entry(name, value, THE_PROGRAM) for name, value in _flatten(values))
    resolve_credentials(layers.values, os.environ)
    settings: Sections = _settings(Sections, "", layers.values)
    validate(settings, layers.sources)
    return settings


def read_layers(
    profile: str | None,
    config_file: str | None,
    environment: Mapping[str, str],
    config_dir: str | None = None,
    listen: Sequence[str] = (),
) -> LoadedSettings:
    """
    Read and merge all layers as :func:`load` does, but without validation.

    :raises ConfigError: a layer cannot be read, has an unknown name or an invalid value.
    """
    chosen = (profile or "").strip().lower() or "default"
    layers = _Layers()
    layers.add(_Entry(name, value, f"profile {chosen}") for name, value in _built_in(chosen).items())
    for path in _files(chosen, config_dir):
        layers.add(_entries(path))
    if config_file is not None:
        layers.add(_entries(_path_from_command_line(config_file)))
    layers.add(_environment(environment))
    if listen:
        layers.add([_Entry("server.listen", list(listen), "--listen")])
    layers.infer()
    resolve_credentials(layers.values, environment)
    return LoadedSettings(_settings(Sections, "", layers.values), chosen, layers.sources, tuple(layers.warnings))


class _Layers:
    """The values of the layers that were added so far."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        self.warnings: list[str] = []
        self._legacy: set[str] = set()

    def add(self, layer: Iterable[_Entry]) -> None:
        """Add a layer, whose values override those of earlier layers."""
        for entry in sorted(layer, key=lambda entry: _FIRST.get(entry.name, len(_FIRST))):
            name, value, source, is_text = entry
            if name in LEGACY and (name != RUST_LOG or is_text):
                self._add_legacy(entry)
            elif name in KINDS:
                self._set(name, convert(name, value, source, is_text), source)
            else:
                near = get_close_matches(name, KINDS, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise _refused("UnknownSetting", f"{name}, set by {source}, is not a setting.{hint}")

    def _add_legacy(self, entry: _Entry) -> None:
        name, value, source, is_text = entry
        try:
            current = convert_legacy(name, value, source, is_text)
        except ConfigError as error:
            if name != RUST_LOG:
                raise
            # The variable may be meant for another program.
            self.warnings.append(f"{error} The server ignores it.")
            return
        self._legacy.add(name)
        if current is not None:
            self._set(LEGACY[name], current, source if is_text else f"{name} in {source}")

    def _set(self, name: str, value: Any, source: str) -> None:
        self.values[name] = value
        self.sources[name] = source
        if name == _VERSIONS:
            self.values.pop(_ALPN, None)
            self.sources.pop(_ALPN, None)

    def infer(self) -> None:
        """
        Infer settings from others.

        ``transport.mode`` is ``tls`` if both deprecated TLS names were used and no layer sets the mode. The rules of a
        built-in profile are dropped if a layer sets ``auth.rules_file``.
        """
        if {"tls.cert_path", "tls.key_path"} <= self._legacy and "transport.mode" not in self.values:
            self._set("transport.mode", "tls", "tls.cert_path and tls.key_path")
        if "auth.rules_file" in self.values and self.sources.get(_RULES, "").startswith("profile "):
            del self.values[_RULES], self.sources[_RULES]


def _built_in(profile: str) -> dict[str, Any]:
    """Return what a profile sets without a file, by dotted name."""
    # Profiles of operators that are for production refuse anonymous requests as the built-in ones do.
    return PROFILES.get(profile, {"auth.allow_anonymous": False} if is_production(profile) else {})


def _settings(group: type[Struct], prefix: str, values: Mapping[str, Any]) -> Any:
    """Build the tree of sections; settings without a value keep their defaults."""
    made = {}
    for name, kind in get_type_hints(group).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            made[name] = _settings(kind, f"{prefix}{name}.", values)
        elif prefix + name in values:
            made[name] = values[prefix + name]
    return group(**made)


def _refused(rule: str, message: str) -> ConfigError:
    return ConfigError(message, rule=rule, phase="load_config")


def _files(profile: str, config_dir: str | None) -> list[Path]:
    """Return the configuration files of the folder, in the order of their layers."""
    folder = Path(CONFIG_DIR)
    if config_dir is not None:
        folder = _path_from_command_line(config_dir)
        if not folder.is_dir():
            why = "is not a directory" if folder.exists() else "does not exist"
            raise _refused("ConfigDirNotFound", f"The folder {folder} (--config-dir) {why}.")
    if _PROFILE_NAME.fullmatch(profile) is None:
        raise _refused(
            "InvalidProfileName",
            f"The profile name {profile!r} is invalid: use letters, digits, - and _ only. "
            f"Built-in profiles: {', '.join(PROFILES)}.",
        )
    files = [folder / f"{name}.toml" for name in dict.fromkeys(("default", profile, "local"))]
    found = [path for path in files if _file_exists(path)]
    own = folder / f"{profile}.toml"
    if profile not in PROFILES and own not in found:
        there = sorted({*PROFILES, *(path.stem for path in folder.glob("*.toml"))} - {"local"})
        raise _refused(
            "UnknownProfile",
            f"There is no profile {profile}. Choose one of {', '.join(there)}, or create {own}.",
        )
    return found


def _file_exists(path: Path) -> bool:
    """Return whether a path exists, including a dangling link and a file that this user may not read."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _refused("FileNotReadable", _UNREADABLE.format(path, error.strerror)) from None
    return True


def _path_from_command_line(path: str) -> Path:
    """Return a path from the command line; reject an empty one, which would be the current directory."""
    if not path.strip():
        raise _refused("EmptyPath", "--config or --config-dir is empty. Give it a path, or leave it out.")
    return Path(path)


def _entries(path: Path) -> list[_Entry]:
    """Read a TOML file as a layer."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return [_Entry(name, value, str(path)) for name, value in _flatten(table)]
    except OSError as error:
        rule = "OverrideFileNotFound" if isinstance(error, FileNotFoundError) else "FileNotReadable"
        raise _refused(rule, _UNREADABLE.format(path, error.strerror)) from None
    except (ValueError, RecursionError) as error:
        raise _refused("TomlParse", f"The configuration file {path} is not valid TOML: {error}.") from None


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        full = prefix + name
        if isinstance(value, Mapping) and (value or not (full in KINDS or full in LEGACY)):
            yield from _flatten(value, f"{full}.")
        else:
            yield full, value


def _environment(environment: Mapping[str, str]) -> Iterator[_Entry]:
    for variable in sorted(environment):
        # Every setting is in a section. A variable without one, such as DS_PORT of a service named ds, is not ours.
        if variable.startswith(PREFIX) and "__" in variable:
            name = variable.removeprefix(PREFIX).lower().replace("__", ".")
            yield _Entry(name, environment[variable], f"environment variable {variable}", True)
    if environment.get(RUST_LOG, "").strip():
        yield _Entry(RUST_LOG, environment[RUST_LOG], f"environment variable {RUST_LOG}", True)
