"""Settings without effect: the table is complete, and each is reported once when it is set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from durable_streams.server import config
from durable_streams.server.config.ineffective import INEFFECTIVE
from durable_streams.server.config.rendering import toml_value
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import warnings_about

from .test_layers import OPEN, LoadTests, defaults

#: No other warning is given while this is set.
QUIET: Final = {"DS_HTTP__ALLOW_WILDCARD_CORS": "true", **OPEN}

#: Settings that only the rules and warnings of ``config`` read.
READ_BY_RULES: Final = {"http.allow_wildcard_cors"}

DEFAULTS: Final = {name: default for name, default in defaults() if name in INEFFECTIVE}


class IneffectiveTests(LoadTests):
    def test_the_table_has_exactly_the_settings_that_no_code_reads(self) -> None:
        folder = Path(str(config.__file__)).parent
        code = "".join(path.read_text() for path in folder.parent.rglob("*.py") if folder not in path.parents)
        unread = {name for name, _ in defaults() if not re.search(rf"\.{name.rpartition('.')[2]}\b", code)}
        self.assertEqual(set(INEFFECTIVE), unread - READ_BY_RULES)

    def test_each_setting_without_effect_is_reported_once_even_at_its_default(self) -> None:
        self.assertEqual(set(INEFFECTIVE), set(DEFAULTS))
        for name, default in DEFAULTS.items():
            value = toml_value(default)
            variable = "DS_" + name.upper().replace(".", "__")
            [warning] = self.loaded(None, self.file(f"{name} = {value}"), QUIET | {variable: value}).warnings
            self.assertEqual(f"{name} has no effect: {INEFFECTIVE[name]}. Remove it.", warning)

    def test_no_warning_is_given_if_no_such_setting_is_set(self) -> None:
        self.assertEqual((), self.loaded(None, None, QUIET).warnings)

    def test_settings_of_a_program_are_reported_if_they_are_not_at_their_defaults(self) -> None:
        settings = Settings.from_mapping({"limits.max_storage_jobs": 5, "http.allow_wildcard_cors": True})
        [warning] = warnings_about(settings)
        self.assertTrue(warning.startswith("limits.max_storage_jobs has no effect: "))
        at_default = Settings.from_mapping({"limits.max_storage_jobs": 64, "http.allow_wildcard_cors": True})
        self.assertEqual([], list(warnings_about(at_default)))
