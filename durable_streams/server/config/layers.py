"""Where settings come from: defaults, a profile, a file, the environment; what comes later wins."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args, get_origin, get_type_hints

from msgspec import Struct
from msgspec.structs import replace

from .settings import Settings
from .validation import ConfigError, validate

PREFIX: Final = "DS_"

_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,18}")

#: Settings that are one of some words, which may be in any case in the environment.
_WORDS: Final = frozenset(["storage.mode", "storage.acid_backend", "observability.log_level"])

#: What a built-in profile sets, by dotted name.
PROFILES: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "dev": {"server.bind_address": "127.0.0.1:4437", "observability.log_level": "debug"},
    "prod": {
        "limits.max_memory_bytes": 536_870_912,
        "limits.max_stream_bytes": 268_435_456,
        "storage.mode": "file-durable",
        "storage.data_dir": "/var/lib/durable-streams",
    },
}


def load(profile: str | None, config_file: str | None, environment: Mapping[str, str]) -> Settings:
    """
    Put the layers together and check the outcome.

    :param profile: one of :data:`PROFILES`, in any case; None or empty for the default one.
    :param config_file: a TOML file's path.
    :raises ConfigError: a layer can't be read, names no setting, or sets one to what it can't be.
    """
    settings = Settings()
    sources: dict[str, str] = {}
    for source, name, value in _layers(profile, config_file, environment):
        settings = _with(settings, name.split("."), value, name, source)
        sources[name] = source
    validate(settings, sources)
    return settings


def setting_names(settings_type: type[Struct] = Settings, prefix: str = "") -> Iterator[str]:
    """List the dotted names of all settings."""
    for name, kind in get_type_hints(settings_type).items():
        if isinstance(kind, type) and issubclass(kind, Struct):
            yield from setting_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _layers(
    profile: str | None, config_file: str | None, environment: Mapping[str, str]
) -> Iterator[tuple[str, str, Any]]:
    chosen = (profile or "default").strip().lower()
    if chosen not in PROFILES:
        raise ConfigError(f"There is no profile {chosen}. There are: {', '.join(PROFILES)}.")
    for name, value in PROFILES[chosen].items():
        yield f"profile {chosen}", name, value
    if config_file is not None:
        for name, value in _flatten(_read_toml(config_file)):
            yield config_file, name, value
    for variable in sorted(environment):
        # All settings have a group. What has none, such as the DS_PORT of a service called ds, is not meant for us.
        if variable.startswith(PREFIX) and "__" in variable:
            name = variable.removeprefix(PREFIX).lower().replace("__", ".")
            value = environment[variable]
            yield f"environment variable {variable}", name, value.lower() if name in _WORDS else value


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The configuration file {path} can't be read: {error.strerror}.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from None


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _with(settings: Any, path: list[str], value: Any, name: str, source: str) -> Any:
    """Set one field in a tree of frozen settings."""
    kinds = get_type_hints(type(settings))
    kind = kinds.get(path[0])
    is_group = isinstance(kind, type) and issubclass(kind, Struct)
    if kind is None or is_group != (len(path) > 1):
        near = get_close_matches(name, list(setting_names()), n=1)
        hint = f" Is it {near[0]}?" if near else ""
        raise ConfigError(f"{name}, set by {source}, is not a setting.{hint}")
    if is_group:
        return replace(settings, **{path[0]: _with(getattr(settings, path[0]), path[1:], value, name, source)})
    return replace(settings, **{path[0]: _convert(value, kind, name, source)})


def _convert(value: Any, kind: Any, name: str, source: str) -> Any:
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
            return value
        if isinstance(value, str) and _WHOLE_NUMBER.fullmatch(value.strip()):
            return int(value)
        wanted = "a whole number of 18 digits at the most"
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return value == "true"
        wanted = "true or false"
    elif get_origin(kind) is tuple and get_args(kind)[0] is str:
        if isinstance(value, str):
            return tuple(item.strip() for item in value.split(",") if item.strip())
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        wanted = "a list of texts"
    else:
        if isinstance(value, str):
            return value.strip()
        wanted = "a text"
    raise ConfigError(f"{name} must be {wanted}, but {source} sets it to {value!r}.")
