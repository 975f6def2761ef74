from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

import durable_streams.server.config.layers as layers_module
from durable_streams.server.config.choices import CHOICES, words_of
from durable_streams.server.config.conversion import KINDS
from durable_streams.server.config.layers import CONFIG_DIR, PROFILES, LoadedSettings, load, read_layers
from durable_streams.server.config.legacy import LEGACY
from durable_streams.server.config.sections import LimitSettings, Sections
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError


def get(settings: Any, name: str) -> Any:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def defaults() -> Iterator[tuple[str, Any]]:
    """Walk through the settings, independently of how the loader does."""

    def walk(group: Struct, prefix: str) -> Iterator[tuple[str, Any]]:
        for field in group.__struct_fields__:
            value = getattr(group, field)
            if isinstance(value, Struct):
                yield from walk(value, f"{prefix}{field}.")
            else:
                yield prefix + field, value

    return walk(Sections(), "")


def variable(name: str) -> str:
    return "DS_" + name.upper().replace(".", "__")


#: What profiles for production ask for beyond their own settings.
IN_PRODUCTION: Final = {"DS_HTTP__ALLOW_WILDCARD_CORS": "true", "DS_AUTH__ALLOW_ANONYMOUS": "true"}

#: What confirms that a server is open to everybody who can reach it.
OPEN: Final = {"DS_AUTH__ALLOW_ANONYMOUS": "true"}

_ASCII = st.text(st.characters(codec="ascii", min_codepoint=33), max_size=20)


class LoadTests(SynchronousTestCase):
    """Layers of which there are only those that a test makes, whatever this machine is configured to be."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def file(self, text: str | bytes, name: str | None = None) -> str:
        """Write a file: one of the folder, or one that is to be given by --config."""
        path = self.path if name is None else self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def loaded(
        self, profile: str | None, file: str | None, environment: dict[str, str], *listen: str
    ) -> LoadedSettings:
        return load(profile, file, environment, str(self.folder), listen)

    def load(self, profile: str | None, file: str | None, environment: dict[str, str]) -> Sections:
        allowed = IN_PRODUCTION if (profile or "").startswith("prod") else {}
        return self.loaded(profile, file, allowed | environment).settings

    def refused(
        self, profile: str | None = None, file: str | None = None, environment: dict[str, str] | None = None
    ) -> str:
        return str(self.refusal(profile, file, environment))

    def refusal(
        self, profile: str | None = None, file: str | None = None, environment: dict[str, str] | None = None
    ) -> ConfigError:
        """The error of a layer that can't be read or understood; that rules are broken is another matter."""
        error: ConfigError = self.assertRaises(ConfigError, self.load, profile, file, environment or {})
        self.assertNotIn(f"[{error.phase}]", str(error))
        return error


class LayerTests(LoadTests):
    def test_without_layers_every_setting_has_its_default(self) -> None:
        for profile in (None, "", "default"):
            self.assertEqual(Sections(), self.load(profile, None, {}))
        self.assertEqual(Sections(), self.load(None, None, {"PATH": "/bin", "DSX": "1", "ds_limits__max_streams": "5"}))

    def test_the_loader_lists_every_setting(self) -> None:
        self.assertEqual([name for name, _ in defaults()], list(KINDS))
        self.assertIn("transport.connection.long_poll_timeout_secs", list(KINDS))

    def test_tables_and_dotted_names_set_the_same_settings(self) -> None:
        dotted = self.load(None, self.file("transport.connection.idle_timeout_secs = 9"), {})
        table = self.load(None, self.file("[transport.connection]\nidle_timeout_secs = 9"), {})
        inline = self.load(None, self.file("transport = {connection = {idle_timeout_secs = 9}}"), {})
        self.assertEqual(9, dotted.transport.connection.idle_timeout_secs)
        self.assertEqual((dotted, dotted), (table, inline))

    def test_settings_that_a_later_layer_does_not_set_are_kept(self) -> None:
        loaded = self.load("dev", self.file("limits.max_streams = 5"), {"DS_LIMITS__MAX_CONNECTIONS": "6"})
        self.assertEqual("127.0.0.1:4437", loaded.server.bind_address)
        self.assertEqual((5, 6), (loaded.limits.max_streams, loaded.limits.max_connections))
        self.assertEqual(Sections().limits.max_stream_bytes, loaded.limits.max_stream_bytes)

    def test_a_later_layer_can_correct_an_earlier_one_that_breaks_a_rule(self) -> None:
        loaded = self.load(None, self.file("limits.max_streams = 0"), {"DS_LIMITS__MAX_STREAMS": "1"})
        self.assertEqual(1, loaded.limits.max_streams)


class ProfileTests(LoadTests):
    def test_built_in_profiles_set_their_settings(self) -> None:
        dev, prod = self.load("dev", None, {}), self.load("prod", None, {})
        self.assertEqual("127.0.0.1:4437", dev.server.bind_address)
        self.assertEqual(("debug", "all"), (dev.observability.log_level, dev.observability.access_log))
        self.assertEqual((536_870_912, 268_435_456), (prod.limits.max_total_bytes, prod.limits.max_stream_bytes))
        self.assertEqual(("file-durable", "/var/lib/durable-streams"), (prod.storage.mode, prod.storage.data_dir))
        self.assertEqual("http", prod.transport.mode)

    def test_prod_tls_and_prod_mtls_need_tls_files_and_otherwise_equal_prod(self) -> None:
        paths = {variable(f"transport.tls.{name}_path"): f"/{name}" for name in ("cert", "key", "client_ca")}
        for profile, mode, files in (("prod-tls", "tls", 2), ("prod-mtls", "mtls", 3)):
            given = dict(list(paths.items())[:files])
            for name in given:
                error = self.refusal(profile, None, {other: path for other, path in given.items() if other != name})
                self.assertEqual(("validate_config", "MissingTlsField"), (error.phase, error.rule))
            loaded = self.load(profile, None, given)
            transport = loaded.transport
            self.assertEqual((mode, ("http1", "http2")), (transport.mode, transport.http.versions))
            self.assertEqual(("h2", "http/1.1"), transport.tls.alpn_protocols)
            self.assertEqual("0.0.0.0:4437", loaded.server.bind_address)
            plain = self.load("prod", None, {})
            self.assertEqual("127.0.0.1:4437", plain.server.bind_address)
            with_its_own = replace(loaded, transport=Sections().transport, server=plain.server, auth=plain.auth)
            self.assertEqual(plain, with_its_own)

    def test_prod_profiles_reject_wildcard_cors_origins_by_default(self) -> None:
        for profile in ("prod", "prod-tls", "prod-mtls", "prod-of-ours"):
            self.file(
                "transport.mode = 'http'\ntransport.http.versions = ['http1']\nauth.methods = []", f"{profile}.toml"
            )
            error = self.assertRaises(ConfigError, self.loaded, profile, None, {})
            self.assertEqual(("validate_config", "WildcardCorsOriginsProd"), (error.phase, error.rule))
            for setting, value in (("http.cors_origins", "https://a.example"), ("http.allow_wildcard_cors", "true")):
                known = {variable("http.public_url"): "https://streams.example", **OPEN}
                self.assertEqual((), self.loaded(profile, None, known | {variable(setting): value}).warnings)

    def test_values_of_built_in_profiles_have_the_types_of_their_settings(self) -> None:
        for profile, values in PROFILES.items():
            loaded = read_layers(profile, None, {}, str(self.folder))
            self.assertEqual(dict.fromkeys(values, f"profile {profile}"), loaded.sources)
            for name, value in values.items():
                self.assertEqual(value, get(loaded.settings, name))
                if get(Sections(), name) is not None:
                    self.assertIs(type(get(Sections(), name)), type(value))

    def test_profile_names_ignore_case_and_surrounding_spaces(self) -> None:
        self.assertEqual(self.load("dev", None, {}), self.load(" Dev\n", None, {}))

    def test_an_unknown_profile_is_rejected_with_the_existing_ones(self) -> None:
        self.file("", "default.toml")
        self.file("", "local.toml")
        self.file("", "staging.toml")
        error = self.refusal("production")
        self.assertEqual(("load_config", "UnknownProfile"), (error.phase, error.rule))
        self.assertEqual(
            "There is no profile production. Choose one of default, dev, prod, prod-mtls, prod-tls, staging, "
            f"or create {self.folder}/production.toml.",
            str(error),
        )

    def test_a_profile_of_the_folder_has_no_built_in_settings(self) -> None:
        self.file("limits.max_streams = 7", "staging.toml")
        loaded = self.loaded(" STAGING ", None, {})
        self.assertEqual(replace(Sections(), limits=LimitSettings(max_streams=7)), loaded.settings)
        self.assertEqual("staging", loaded.profile)

    def test_a_profile_name_cannot_leave_the_folder(self) -> None:
        (self.folder / "inner").mkdir()
        self.file("limits.max_streams = 7", "inner/x.toml")
        Path(self.folder.parent, "outer.toml").write_text("limits.max_streams = 7")
        for name in ("inner/x", "../outer", "/etc/passwd", ".", "..", "a.b", "a b", "caf\u00e9", "x\x00", "\u0663"):
            error = self.refusal(name)
            self.assertEqual(("load_config", "InvalidProfileName"), (error.phase, error.rule))
            self.assertIn(repr(name), str(error))


class UnknownTests(LoadTests):
    def test_an_unknown_setting_is_rejected_with_the_nearest_name(self) -> None:
        message = self.refused(file=self.file("limits.max_stream = 5"))
        for part in ("limits.max_stream,", str(self.path), "Did you mean limits.max_streams?"):
            self.assertIn(part, message)

    def test_an_unknown_setting_in_a_variable_is_rejected_with_the_nearest_name(self) -> None:
        message = self.refused(environment={"DS_SERVER__BIND_ADRESS": "x"})
        for part in (
            "server.bind_adress",
            "environment variable DS_SERVER__BIND_ADRESS",
            "Did you mean server.bind_address?",
        ):
            self.assertIn(part, message)

    def test_an_unknown_setting_without_a_similar_name_has_no_hint(self) -> None:
        self.assertNotIn("Is it", self.refused(file=self.file("xyzzy = 5")))

    def test_a_section_as_a_setting_and_a_setting_as_a_section_are_rejected(self) -> None:
        for text in (
            "server = 5",
            "server = ''",
            "transport.connection = 5",
            "limits.max_streams.x = 1",
            "limits.max_streams = {x = 1}",
            "'' = 1",
            "limits.'' = 1",
            "xyzzy = {x = {y = 1}}",
            "RUST_LOG = 'info'",
        ):
            self.assertIn("is not a setting", self.refused(file=self.file(text)))
        for name in ("DS___", "DS_SERVER__", "DS_LIMITS__MAX_STREAMS__X"):
            self.assertIn(f"environment variable {name}, is not a setting", self.refused(environment={name: "1"}))

    def test_a_variable_without_a_section_is_ignored(self) -> None:
        for name in ("DS_", "DS_SERVER", "DS_LIMITS_MAX_STREAMS", "DS_PORT_4437_TCP"):
            self.assertEqual(self.load(None, None, {name: "1"}), Sections())

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.builds("{}__{}".format, _ASCII, _ASCII))
    def test_any_variable_with_a_section_is_a_setting_or_rejected(self, rest: str) -> None:
        try:
            loaded = read_layers(None, None, {f"DS_{rest}": "7"}, str(self.folder))
        except ConfigError as error:
            self.assertIn(f"DS_{rest}", str(error))
        else:
            self.assertIn(rest.lower().replace("__", "."), [*KINDS, *LEGACY])
            self.assertNotEqual(Sections(), loaded.settings)


class FileTests(LoadTests):
    def test_a_missing_file_is_rejected(self) -> None:
        error = self.refusal(file="/no/such/file.toml")
        self.assertEqual(("load_config", "OverrideFileNotFound"), (error.phase, error.rule))
        self.assertEqual(
            "Cannot read the configuration file /no/such/file.toml: No such file or directory.", str(error)
        )

    def test_a_directory_as_a_file_is_rejected(self) -> None:
        self.path.mkdir()
        error = self.refusal(file=str(self.path))
        self.assertIn("Is a directory", str(error))
        self.assertEqual(("load_config", "FileNotReadable"), (error.phase, error.rule))

    def test_invalid_toml_is_rejected_with_its_line(self) -> None:
        message = self.refused(file=self.file("[server]\nbind_address: 'x'\n"))
        for part in (str(self.path), "not valid TOML", "line 2"):
            self.assertIn(part, message)
        error = self.refusal(file=str(self.path))
        self.assertEqual(("load_config", "TomlParse"), (error.phase, error.rule))

    def test_files_that_are_not_utf8_toml_are_rejected(self) -> None:
        for text in (
            b"a = '\xff'",
            b"\xef\xbb\xbfa = 1",
            b"limits.max_streams = 5\nlimits.max_streams = 6",
            b"x = " + b"9" * 5000,
            b"x = " + b"[" * 100_000,
            b"\x00",
        ):
            self.assertIn("not valid TOML", self.refused(file=self.file(text)))

    def test_deeply_nested_toml_is_rejected(self) -> None:
        self.assertIn("not valid TOML", self.refused(file=self.file("a." * 20_000 + "a = 1")))

    def test_error_messages_are_one_line_for_any_file_name(self) -> None:
        self.path = self.folder / "a\nb"
        message = self.refused(file=self.file('"y\\\\n" = 1'))
        self.assertEqual(f"y\\n, set by {self.folder}/a\\nb, is not a setting.", message)
        message = self.refused(environment={"DS_\udcff__X": "1"})
        self.assertEqual("\\udcff.x, set by environment variable DS_\\udcff__X, is not a setting.", message)

    def test_an_empty_file_sets_nothing(self) -> None:
        self.assertEqual(Sections(), self.load(None, self.file("# nothing\n[limits]\n"), {}))


class FolderTests(LoadTests):
    def test_files_of_the_folder_override_each_other_in_order(self) -> None:
        self.file("limits.max_streams = 1\nlimits.max_connections = 1\nlimits.max_target_bytes = 1", "default.toml")
        self.file("limits.max_streams = 2\nlimits.max_connections = 2", "dev.toml")
        self.file("limits.max_streams = 3", "local.toml")
        self.file("limits.max_streams = 4", "prod.toml")
        limits = self.load("dev", None, {}).limits
        self.assertEqual((3, 2, 1), (limits.max_streams, limits.max_connections, limits.max_target_bytes))
        limits = self.load(None, None, {}).limits
        self.assertEqual((3, 1, 1), (limits.max_streams, limits.max_connections, limits.max_target_bytes))

    def test_files_of_the_folder_override_the_profile_and_config_overrides_them(self) -> None:
        local = self.file("server.bind_address = '127.0.0.1:1'\nlimits.max_streams = 1", "local.toml")
        given = self.file("limits.max_streams = 2")
        loaded = self.loaded("dev", given, {})
        self.assertEqual(("127.0.0.1:1", 2), (loaded.settings.server.bind_address, loaded.settings.limits.max_streams))
        self.assertEqual(local, loaded.sources["server.bind_address"])
        self.assertEqual(given, loaded.sources["limits.max_streams"])
        self.assertEqual("profile dev", loaded.sources["observability.log_level"])

    def test_a_folder_on_the_command_line_must_exist(self) -> None:
        file = self.file("")
        for folder, why in (("/no/such/folder", "does not exist"), (file, "is not a directory")):
            error = self.assertRaises(ConfigError, load, None, None, {}, folder)
            self.assertEqual(("load_config", "ConfigDirNotFound"), (error.phase, error.rule))
            self.assertEqual(f"The folder {folder} (--config-dir) {why}.", str(error))

    def test_the_default_folder_is_the_documented_one(self) -> None:
        self.assertEqual("/etc/durable-streams", CONFIG_DIR)
        self.patch(layers_module, "CONFIG_DIR", str(self.folder))
        self.file("limits.max_streams = 5", "default.toml")
        self.assertEqual(5, load(None, None, {}).settings.limits.max_streams)
        self.patch(layers_module, "CONFIG_DIR", "/no/such/folder")
        self.assertEqual(Sections(), load(None, None, {}).settings)

    def test_an_empty_path_of_the_folder_or_file_is_rejected(self) -> None:
        self.file("limits.max_streams = 5", "default.toml")
        self.addCleanup(os.chdir, Path.cwd())
        os.chdir(self.folder)
        self.patch(layers_module, "CONFIG_DIR", "/no/such/folder")
        self.assertEqual(Sections(), load(None, None, {}).settings)
        for file, folder in ((None, ""), (None, " "), ("", None)):
            error = self.assertRaises(ConfigError, load, None, file, {}, folder)
            self.assertIn("is empty. Give it a path", str(error))
        self.assertEqual(5, load(None, None, {}, ".").settings.limits.max_streams)

    def test_a_dangling_link_in_the_folder_is_rejected(self) -> None:
        (self.folder / "local.toml").symlink_to("gone.toml")
        self.assertIn(f"{self.folder}/local.toml: No such file", self.refused())

    def test_an_unreadable_file_of_the_folder_is_rejected(self) -> None:
        def refuse(_: object) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "lstat", refuse)
        error = self.refusal()
        self.assertEqual(("load_config", "FileNotReadable"), (error.phase, error.rule))
        self.assertIn("default.toml: Permission denied", str(error))


class EndpointTests(LoadTests):
    def test_endpoints_of_the_command_line_override_all_layers(self) -> None:
        loaded = self.loaded(None, None, {"DS_SERVER__LISTEN": "tcp:1, tcp:2"}, "tcp:3:interface=a,b", "unix:/x")
        self.assertEqual(("tcp:3:interface=a,b", "unix:/x"), loaded.settings.server.listen)
        self.assertEqual({"server.listen": "--listen"}, loaded.sources)

    def test_without_endpoints_on_the_command_line_those_of_the_layers_are_used(self) -> None:
        self.assertEqual(("tcp:1", "tcp:2"), self.load(None, None, {"DS_SERVER__LISTEN": "tcp:1, tcp:2"}).server.listen)

    def test_a_blank_endpoint_is_rejected(self) -> None:
        error = self.assertRaises(ConfigError, self.loaded, None, None, {}, "tcp:1", " ")
        self.assertEqual(("validate_config", "EmptyListenEndpoint"), (error.phase, error.rule))


class WarningTests(LoadTests):
    def test_a_wildcard_cors_origin_is_warned_about(self) -> None:
        [warning] = self.loaded(None, None, OPEN).warnings
        self.assertIn("http.cors_origins is *", warning)
        for setting, value in (("http.allow_wildcard_cors", "true"), ("http.cors_origins", "https://a.example")):
            self.assertEqual((), self.loaded(None, None, OPEN | {variable(setting): value}).warnings)

    def test_a_production_profile_with_subscriptions_and_without_a_public_url_is_warned_about(self) -> None:
        known = IN_PRODUCTION
        for profile in ("prod", "prod-of-ours"):
            self.file("", "prod-of-ours.toml")
            [warning] = self.loaded(profile, None, known).warnings
            self.assertIn("http.public_url is not set", warning)
            for setting, value in (("http.public_url", "https://a.example"), ("subscriptions.enabled", "false")):
                self.assertEqual((), self.loaded(profile, None, known | {variable(setting): value}).warnings)
        self.assertEqual((), self.loaded("dev", None, known).warnings)

    def test_tokens_that_cross_the_network_unencrypted_are_warned_about(self) -> None:
        known = {
            **OPEN,
            "DS_HTTP__ALLOW_WILDCARD_CORS": "true",
            "DS_ADMIN__ENABLED": "true",
            "DS_ADMIN__TOKEN_FILE": "/tokens",
        }
        for name, value in (
            ("server.bind_address", "0.0.0.0:1"),
            ("server.bind_address", "[::]:1"),
            ("server.bind_address", "10.0.0.1:1"),
            ("admin.bind_address", "0.0.0.0:4438"),
            ("server.listen", "unix:/run/x,tcp:80"),
        ):
            [warning] = self.loaded(None, None, known | {variable(name): value}).warnings
            self.assertIn(f"admin.token_file is set, and {name} is '{value.rpartition(',')[2]}', without TLS", warning)
        tls = {
            "DS_TRANSPORT__MODE": "tls",
            "DS_TRANSPORT__TLS__CERT_PATH": "/cert",
            "DS_TRANSPORT__TLS__KEY_PATH": "/key",
        }
        for changes in (
            {variable("server.bind_address"): "127.0.0.1:1"},
            {variable("server.listen"): "unix:/run/x, tcp:80:interface=127.0.0.1, tcp6:80:interface=\\:\\:1"},
            {variable("server.listen"): "tls:443:interface=10.0.0.1"},
            {variable("admin.bind_address"): "127.0.0.2:1"},
            tls,
        ):
            self.assertEqual((), self.loaded(None, None, known | changes).warnings)


class AdminExposureTests(LoadTests):
    def refused_exposure(self, **settings: str) -> str:
        environment = {f"DS_{name.upper()}": value for name, value in settings.items()}
        error = self.assertRaises(ConfigError, self.loaded, None, None, {"DS_ADMIN__ENABLED": "true"} | environment)
        self.assertEqual(("AdminRequiresTokenFile", "validate_config"), (error.rule, error.phase))
        return str(error)

    def test_pages_for_operators_without_tokens_that_other_machines_reach_are_refused(self) -> None:
        for setting, value in (
            ("server__bind_address", "0.0.0.0:1"),
            ("server__bind_address", "[::]:1"),
            ("server__bind_address", "10.0.0.1:1"),
            ("admin__bind_address", "0.0.0.0:4438"),
            ("server__listen", "unix:/run/x,tcp:80"),
            ("server__listen", "tls:443:interface=10.0.0.1"),
            ("server__listen", "systemd:domain=INET:index=0"),
        ):
            message = self.refused_exposure(**{setting: value})
            self.assertIn(repr(value.rpartition(",")[2]), message)
            self.assertIn(setting.replace("__", "."), message)

    def test_the_refusal_names_settings_values_and_the_fix(self) -> None:
        self.assertEqual(
            "admin.token_file must be the path of a file with a bearer token on each line, or admin.bind_address a "
            "loopback address such as 127.0.0.1:4438, while admin.enabled is true by environment variable "
            "DS_ADMIN__ENABLED and server.bind_address is '0.0.0.0:4437' by the default, which other machines can "
            "reach; it is not set.",
            self.refused_exposure(),
        )

    def test_certificates_of_the_streams_listener_are_none_of_a_separate_one(self) -> None:
        mtls = {"transport__mode": "mtls"}
        for name in ("cert_path", "key_path", "client_ca_path"):
            mtls[f"transport__tls__{name}"] = "/file"
        self.refused_exposure(**mtls, admin__bind_address="10.0.0.1:4438")
        self.loaded(None, None, {f"DS_{name.upper()}": value for name, value in mtls.items()})

    def test_local_addresses_certificates_and_tokens_are_accepted(self) -> None:
        mtls = "mtls:443:certificate=a:key=b:clientCA=c"
        for changes in (
            {"server.bind_address": "127.0.0.1:1"},
            {"server.bind_address": "[::1]:1"},
            {"server.listen": "unix:/run/x, tcp:80:interface=127.0.0.1, tcp6:80:interface=\\:\\:1"},
            {"server.listen": f"{mtls},haproxy:{mtls}"},
            {"admin.bind_address": "127.0.0.2:1"},
            {"admin.token_file": "/tokens"},
            {"admin.enabled": "false"},
        ):
            self.loaded(
                None, None, {variable(name): text for name, text in {"admin.enabled": "true", **changes}.items()}
            )

    def test_a_program_that_binds_its_own_addresses_is_not_refused(self) -> None:
        self.assertTrue(Settings.from_mapping({"admin": {"enabled": True}}).admin.enabled)
        self.assertTrue(Settings.load(environment={"DS_ADMIN__ENABLED": "true"}).admin.enabled)

    def test_an_empty_token_file_and_one_that_nothing_reads_are_refused(self) -> None:
        for environment, rule in (
            ({"DS_ADMIN__ENABLED": "true", "DS_ADMIN__TOKEN_FILE": " "}, "EmptyPath"),
            ({"DS_ADMIN__TOKEN_FILE": "/tokens"}, "AdminTokenFileRequiresAdmin"),
        ):
            error = self.assertRaises(ConfigError, self.loaded, None, None, environment)
            self.assertEqual(rule, error.rule)


class ConversionTests(LoadTests):
    def test_whole_numbers_are_converted(self) -> None:
        for text, number in (("5", 5), (" 5\n", 5), ("0005", 5)):
            self.assertEqual(number, self.load(None, None, {"DS_LIMITS__MAX_STREAMS": text}).limits.max_streams)

    def test_a_variable_that_is_not_a_whole_number_is_rejected(self) -> None:
        for text in ("", " ", "five", "5.0", "1e3", "+5", "5 000", "5_000", "0x5", "\u0665", "9" * 19, "9" * 5000):
            message = self.refused(environment={"DS_LIMITS__MAX_STREAMS": text})
            for part in ("limits.max_streams", "whole number", "DS_LIMITS__MAX_STREAMS", repr(text)):
                self.assertIn(part, message)

    def test_a_value_in_a_file_that_is_not_a_whole_number_is_rejected(self) -> None:
        for text in ("'five'", "'5'", "5.0", "true", "[5]", "{}", "1979-05-27", "inf", "9" * 19, "-" + "9" * 19):
            message = self.refused(file=self.file(f"limits.max_streams = {text}"))
            for part in ("limits.max_streams", "whole number", str(self.path)):
                self.assertIn(part, message)

    def test_whole_numbers_have_at_most_18_digits(self) -> None:
        for loaded in (
            self.load(None, None, {"DS_LIMITS__MAX_STREAMS": "9" * 18}),
            self.load(None, self.file("limits.max_streams = " + "9" * 18), {}),
        ):
            self.assertEqual(10**18 - 1, loaded.limits.max_streams)
        self.assertIn("18 digits", self.refused(environment={"DS_LIMITS__MAX_STREAMS": "1" + "0" * 18}))
        self.assertIn("18 digits", self.refused(file=self.file("limits.max_streams = 1" + "0" * 18)))

    def test_a_number_below_its_minimum_is_rejected_in_every_layer(self) -> None:
        self.assertIn("1 or more", self.refused(environment={"DS_LIMITS__MAX_STREAMS": "-5"}))
        self.assertIn("1 or more", self.refused(file=self.file("limits.max_streams = -5")))

    def test_texts_are_converted(self) -> None:
        self.assertEqual("/x", self.load(None, None, {"DS_HTTP__STREAM_BASE_PATH": " /x "}).http.stream_base_path)
        for text in ("5", "true", "['/x']", "1979-05-27"):
            message = self.refused(file=self.file(f"http.stream_base_path = {text}"))
            for part in ("http.stream_base_path", "a text", str(self.path)):
                self.assertIn(part, message)

    def test_lists_of_texts_are_converted(self) -> None:
        expected = ("https://a.example", "https://b.example")
        for text in ("https://a.example,https://b.example", " https://a.example , ,https://b.example,"):
            self.assertEqual(expected, self.load(None, None, {"DS_HTTP__CORS_ORIGINS": text}).http.cors_origins)
            self.assertEqual(
                expected, self.load(None, self.file(f"http.cors_origins = '{text}'"), {}).http.cors_origins
            )
        listed = self.file("http.cors_origins = ['https://a.example', 'https://b.example']")
        self.assertEqual(expected, self.load(None, listed, {}).http.cors_origins)
        for text in ("5", "[5]", "['https://a.example', 5]", "true"):
            message = self.refused(file=self.file(f"http.cors_origins = {text}"))
            for part in ("http.cors_origins", "a list of texts", str(self.path)):
                self.assertIn(part, message)

    def test_true_and_false_are_converted(self) -> None:
        for text, value in (("true", True), ("false", False), (" true\n", True)):
            self.assertIs(value, self.load(None, None, {"DS_OBSERVABILITY__TRACES": text}).observability.traces)
        for text in ("", "True", "TRUE", "yes", "1", "0", "on"):
            message = self.refused(environment={"DS_OBSERVABILITY__TRACES": text})
            self.assertEqual(
                "observability.traces must be true or false; environment variable DS_OBSERVABILITY__TRACES sets it to "
                f"{text!r}.",
                message,
            )
        self.assertTrue(self.load(None, self.file("observability.traces = true"), {}).observability.traces)
        for text in ("'true'", "1", "[true]"):
            self.assertIn("must be true or false", self.refused(file=self.file(f"observability.traces = {text}")))

    def test_words_may_be_in_any_case_in_the_environment_only(self) -> None:
        for name, words in CHOICES.items():
            listed = isinstance(get(Sections(), name), tuple) or name.endswith("alpn_protocols")
            for word, canonical in words.items():
                expected = (canonical,) if listed else canonical
                written = f"['{word}']" if listed else f"'{word}'"
                for loaded in (
                    read_layers(None, None, {variable(name): word.upper()}, str(self.folder)),
                    read_layers(None, self.file(f"{name} = {written}"), {}, str(self.folder)),
                ):
                    self.assertEqual(expected, get(loaded.settings, name))
                if word.upper() != word:
                    error = self.refusal(file=self.file(f"{name} = {written.upper()}"))
                    self.assertEqual(("load_config", "InvalidValue"), (error.phase, error.rule))
                    self.assertIn(f"{name} must be {words_of(name)}; ", str(error))

    def test_two_spellings_of_one_word_in_a_list_become_one_item(self) -> None:
        versions = self.load(None, None, {"DS_TRANSPORT__HTTP__VERSIONS": "1.1, http1, H1"}).transport.http.versions
        self.assertEqual(("http1",), versions)

    def test_a_tls_version_as_a_number_is_rejected(self) -> None:
        message = self.refused(file=self.file("transport.tls.min_version = 1.2"))
        self.assertIn("transport.tls.min_version must be a text in quotes, one of 1.2 or 1.3; ", message)

    def test_texts_with_control_characters_are_rejected(self) -> None:
        for value in ("/a\x00b", "/a\nb", "/\x7f", "/\udcff"):
            message = self.refused(environment={"DS_STORAGE__DATA_DIR": value})
            self.assertIn("storage.data_dir must be a text without control characters; ", message)
        self.assertEqual(
            "/caf\u00e9 x", self.load(None, None, {"DS_STORAGE__DATA_DIR": "/caf\u00e9 x"}).storage.data_dir
        )

    def test_an_error_does_not_repeat_a_secret(self) -> None:
        message = self.refused(environment={"DS_HTTP__CORS_ORIGINS": "https://me:hush@a.example"})
        self.assertIn("'https://***@a.example'", message)
        self.assertNotIn("hush", message)

    def test_the_loader_knows_the_type_of_every_setting(self) -> None:
        self.assertEqual({int, bool, str, tuple[str, ...]}, set(KINDS.values()))
