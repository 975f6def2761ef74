"""The settings of a server, as an embedding program creates them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

from .layers import load, settings_from_mapping
from .sections import Sections


class Settings(Sections, frozen=True):
    """
    All settings of a server.

    The constructor checks types only; :meth:`from_mapping`, :meth:`load` and :func:`.build_service` validate them.
    """

    @classmethod
    def of(cls, sections: Sections) -> Self:
        """Return settings with the given sections."""
        return cls(**{name: getattr(sections, name) for name in cls.__struct_fields__})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """
        Return the validated settings of a dictionary in the form of the configuration file.

        ``{"limits": {"max_streams": 10}}`` and ``{"limits.max_streams": 10}`` are the same.

        :raises ConfigError: a name is unknown, a value is invalid, or the settings break a rule. The message names the
            setting, the value and what it must be.
        """
        return cls.of(settings_from_mapping(values))

    @classmethod
    def load(
        cls,
        profile: str | None = None,
        config_file: str | None = None,
        environment: Mapping[str, str] | None = None,
        config_dir: str | None = None,
    ) -> Self:
        """
        Read settings as the daemon does: from the profile, the files of a folder, a file, and the environment.

        :param profile: ``dev``, ``prod``, ``prod-tls``, ``prod-mtls``, or the name of a file in the folder.
        :param config_file: the path of a TOML file.
        :param environment: variables such as DS_STORAGE__MODE; None for those of the process.
        :param config_dir: the folder of ``default.toml`` and the others; None for ``/etc/durable-streams``.
        :raises ConfigError: a layer cannot be read, has an unknown name or an invalid value, or the settings break a
            rule.
        """
        variables = os.environ if environment is None else environment
        loaded = load(profile, config_file, variables, config_dir, binds_addresses=False)
        return cls.of(loaded.settings)
