"""Credentials of systemd as paths of files."""

from __future__ import annotations

import os
from typing import ClassVar

from durable_streams.server.config.conversion import KINDS
from durable_streams.server.config.credentials import FILES, check_credentials
from durable_streams.server.config.layers import read_layers
from durable_streams.server.config.sections import value_of
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError

from .test_layers import LoadTests, variable

#: Settings with the path of something else than a file that is read.
OTHERS = {"observability.log_file", "http.stream_base_path", "admin.base_path"}


class CredentialTests(LoadTests):
    needed: ClassVar = {"auth.methods": "token", "auth.rules": "allow authenticated all **"}

    def variables(self, **more: str) -> dict[str, str]:
        given = self.needed | {"auth.token_file": "credential:tokens"}
        return {variable(name): value for name, value in given.items()} | more

    def test_every_setting_of_a_file_that_is_read_is_listed(self) -> None:
        named = {name for name in KINDS if name.endswith(("_file", "_path"))}
        self.assertEqual(named - OTHERS, set(FILES))

    def test_a_credential_is_a_file_in_the_directory_of_systemd(self) -> None:
        settings = self.load(None, None, self.variables(CREDENTIALS_DIRECTORY="/run/credentials/x"))
        self.assertEqual("/run/credentials/x/tokens", settings.auth.token_file)
        check_credentials(settings)

    def test_a_start_without_the_directory_is_refused_with_the_line_of_the_unit(self) -> None:
        settings = self.load(None, None, self.variables())
        error = self.assertRaises(ConfigError, check_credentials, settings)
        self.assertEqual("validate_config", error.phase)
        self.assertIn("auth.token_file is 'credential:tokens', and CREDENTIALS_DIRECTORY is not set", str(error))
        self.assertIn("LoadCredential=tokens:/path/of/the/file", str(error))

    def test_each_setting_may_be_a_credential(self) -> None:
        for name in FILES:
            loaded = self.read(name)
            self.assertEqual("/run/c/x", value_of(loaded, name))

    def read(self, name: str) -> Settings:
        environment = {variable(name): "credential:x", "CREDENTIALS_DIRECTORY": "/run/c"}
        return Settings.of(read_layers(None, None, environment, str(self.folder)).settings)

    def test_a_program_gets_the_credentials_of_its_own_unit(self) -> None:
        self.patch(os, "environ", os.environ | {"CREDENTIALS_DIRECTORY": "/run/c"})
        settings = Settings.from_mapping(self.needed | {"auth.token_file": "credential:tokens"})
        self.assertEqual("/run/c/tokens", settings.auth.token_file)
