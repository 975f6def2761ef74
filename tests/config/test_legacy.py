"""Names that settings had, and log filters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from durable_streams.server.config.legacy import level_of_filter
from durable_streams.server.config.sections import Sections
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError

from .test_layers import OPEN, LoadTests, get


class LegacyTests(LoadTests):
    def test_each_older_name_sets_its_setting_in_files_and_in_the_environment(self) -> None:
        for name, value, setting, meant in (
            ("server.port", "80", "server.bind_address", "0.0.0.0:80"),
            ("limits.max_memory_bytes", "500", "limits.max_total_bytes", 500),
            ("server.long_poll_timeout_secs", "7", "transport.connection.long_poll_timeout_secs", 7),
            ("server.sse_reconnect_interval_secs", "0", "transport.connection.sse_reconnect_interval_secs", 0),
            ("log.rust_log", "'warn'", "observability.log_level", "warn"),
            ("observability.rust_log", "'debug,hyper=warn'", "observability.log_level", "debug"),
        ):
            variable = "DS_" + name.upper().replace(".", "__")
            by_environment = self.loaded(None, None, {variable: value.strip("'")})
            by_file = self.loaded(None, self.file(f"{name} = {value}"), {})
            for loaded, source in (
                (by_environment, f"environment variable {variable}"),
                (by_file, f"{name} in {self.path}"),
            ):
                self.assertEqual(meant, get(loaded.settings, setting))
                self.assertEqual({setting: source}, loaded.sources)

    def test_within_a_layer_the_current_name_wins_in_any_order(self) -> None:
        for text in (
            "server.port = 80\nserver.bind_address = '127.0.0.1:81'",
            "server.bind_address = '127.0.0.1:81'\nserver.port = 80",
        ):
            self.assertEqual("127.0.0.1:81", self.load(None, self.file(text), {}).server.bind_address)

    def test_max_total_bytes_wins_over_max_memory_bytes_in_the_same_layer(self) -> None:
        for text in (
            "limits.max_memory_bytes = 1\nlimits.max_total_bytes = 2",
            "limits.max_total_bytes = 2\nlimits.max_memory_bytes = 1",
        ):
            self.assertEqual(2, self.load(None, self.file(text), {}).limits.max_total_bytes)
        both = {"DS_LIMITS__MAX_MEMORY_BYTES": "3", "DS_LIMITS__MAX_TOTAL_BYTES": "4"}
        self.assertEqual(4, self.load(None, self.file(text), both).limits.max_total_bytes)
        older = {"DS_LIMITS__MAX_MEMORY_BYTES": "3"}
        self.assertEqual(3, self.load(None, self.file(text), older).limits.max_total_bytes)

    def test_max_memory_bytes_is_accepted_by_from_mapping_and_below_profiles(self) -> None:
        self.assertEqual(5, Settings.from_mapping({"limits": {"max_memory_bytes": 5}}).limits.max_total_bytes)
        origins = {"DS_HTTP__CORS_ORIGINS": "https://app.example.com"}
        file = self.file("limits.max_memory_bytes = 6")
        self.assertEqual(6, self.load("prod", file, origins).limits.max_total_bytes)

    def test_an_invalid_max_memory_bytes_names_the_setting_and_the_name_that_was_written(self) -> None:
        self.assertIn(
            "limits.max_memory_bytes must be a whole number",
            self.refused(environment={"DS_LIMITS__MAX_MEMORY_BYTES": "many"}),
        )
        self.assertEqual(
            "limits.max_total_bytes must be 1 or more; environment variable DS_LIMITS__MAX_MEMORY_BYTES sets it to 0.",
            self.refused(environment={"DS_LIMITS__MAX_MEMORY_BYTES": "0"}),
        )

    def test_a_later_layer_wins_with_either_name(self) -> None:
        file = self.file("server.bind_address = '127.0.0.1:81'")
        self.assertEqual("0.0.0.0:80", self.load(None, file, {"DS_SERVER__PORT": "80"}).server.bind_address)

    def test_an_invalid_port_is_rejected(self) -> None:
        for value in ("-1", "65536", "'http'", "80.0", "true", "'80'", "[80]"):
            error = self.refusal(None, self.file(f"server.port = {value}"))
            self.assertEqual(("load_config", "InvalidValue"), (error.phase, error.rule))
            self.assertIn(f"server.port must be a port, from 0 to 65535; {self.path} sets it to ", str(error))
        for value in ("", "-1", "http", "99999", "\u0668"):
            self.assertIn("must be a port", self.refused(environment={"DS_SERVER__PORT": value}))

    def test_an_invalid_value_is_reported_with_the_name_that_was_written(self) -> None:
        for name in ("server.long_poll_timeout_secs", "tls.cert_path", "log.rust_log", "observability.rust_log"):
            self.assertIn(f"{name} must be ", self.refused(file=self.file(f"{name} = [5]")))

    def test_a_rule_names_the_setting_and_the_name_that_was_written(self) -> None:
        message = self.refused(file=self.file("server.long_poll_timeout_secs = 0"))
        self.assertEqual(
            "transport.connection.long_poll_timeout_secs must be 1 or more; server.long_poll_timeout_secs in "
            f"{self.path} sets it to 0.",
            message,
        )


class LegacyTlsTests(LoadTests):
    both = "tls.cert_path = '/cert.pem'\ntls.key_path = '/key.pem'"

    def test_an_older_certificate_and_key_imply_tls(self) -> None:
        by_environment = {"DS_TLS__CERT_PATH": "/cert.pem", "DS_TLS__KEY_PATH": "/key.pem"}
        for loaded in (self.loaded(None, self.file(self.both), {}), self.loaded(None, None, by_environment)):
            transport = loaded.settings.transport
            self.assertEqual(("tls", "/cert.pem", "/key.pem"), (transport.mode, *_paths(loaded.settings)))
            self.assertEqual("tls.cert_path and tls.key_path", loaded.sources["transport.mode"])

    def test_a_certificate_and_a_key_in_two_layers_imply_tls(self) -> None:
        self.file("tls.cert_path = '/cert.pem'", "default.toml")
        loaded = self.load(None, None, {"DS_TLS__KEY_PATH": "/key.pem"})
        self.assertEqual(("tls", "/cert.pem", "/key.pem"), (loaded.transport.mode, *_paths(loaded)))

    def test_a_mode_in_any_layer_overrides_the_implied_tls(self) -> None:
        for text in ("http", "mtls"):
            self.file(f"transport.mode = '{text}'", "default.toml")
            error = self.assertRaises(ConfigError, self.load, None, self.file(self.both), {})
            self.assertIn(f"transport.mode is '{text}' by {self.folder}/default.toml", str(error))
        self.assertEqual(
            "tls", self.load("prod-tls", self.file(self.both), {"DS_TRANSPORT__MODE": "tls"}).transport.mode
        )

    def test_the_current_names_do_not_imply_tls(self) -> None:
        for text in ("tls.cert_path = '/cert.pem'", "transport.tls.cert_path = '/c'\ntransport.tls.key_path = '/k'"):
            error = self.assertRaises(ConfigError, self.load, None, self.file(text), {})
            self.assertEqual("HttpModeDisallowsTlsField", error.rule)


class FilterTests(LoadTests):
    def test_a_log_filter_sets_the_level(self) -> None:
        for text, level in (
            ("trace", "debug"),
            ("debug", "debug"),
            ("INFO", "info"),
            (" warn ", "warn"),
            ("error", "error"),
            ("off", "error"),
            *(("0", "error"), ("1", "error"), ("2", "warn"), ("3", "info"), ("4", "debug"), ("5", "debug")),
            ("debug,hyper=warn", "debug"),
            ("hyper=warn, debug", "debug"),
            ("info,debug", "debug"),
            ("durable_streams=debug", "debug"),
            ("warn,durable_streams=debug", "debug"),
            ("debug,durable_streams=warn", "warn"),
            ("durable_streams_server::handlers=info,durable_streams=error", "info"),
            ("durable_streams", "debug"),
            ("h2::proto,info", "info"),
            ("info,,", "info"),
        ):
            self.assertEqual(level, level_of_filter(text))

    def test_a_filter_for_other_targets_does_not_set_the_level(self) -> None:
        for text in ("hyper=warn", "hyper=warn,tower_http=trace", "h2::proto", ",", ""):
            self.assertIsNone(level_of_filter(text))
        self.assertEqual("info", self.load(None, None, {"RUST_LOG": "hyper=trace"}).observability.log_level)
        self.assertEqual("debug", self.load("dev", None, {"RUST_LOG": "hyper=trace"}).observability.log_level)

    def test_a_malformed_filter_is_rejected(self) -> None:
        for text in (
            "inof",
            "loud",
            "hyper=loud",
            "hyper=",
            "=info",
            "a=b=c",
            "a b",
            "durable_streams[span]=debug",
            "6",
        ):
            self.assertRaises(ValueError, level_of_filter, text)
            error = self.refusal(environment={"DS_OBSERVABILITY__RUST_LOG": text})
            self.assertEqual(("load_config", "InvalidValue"), (error.phase, error.rule))
            self.assertEqual(
                "observability.rust_log must be a level (trace, debug, info, warn, error or off), or a filter like "
                "info,durable_streams=debug; environment variable DS_OBSERVABILITY__RUST_LOG sets it to "
                f"{text!r}.",
                str(error),
            )

    def test_rust_log_overrides_the_other_filters_but_not_the_setting(self) -> None:
        filters = {"DS_OBSERVABILITY__RUST_LOG": "error", "DS_LOG__RUST_LOG": "error", "RUST_LOG": "warn"}
        self.assertEqual("warn", self.load("dev", None, filters).observability.log_level)
        file = self.file("observability.log_level = 'error'")
        self.assertEqual("warn", self.load(None, file, {"RUST_LOG": "warn"}).observability.log_level)
        chosen = filters | {"DS_OBSERVABILITY__LOG_LEVEL": "debug"}
        self.assertEqual("debug", self.load(None, None, chosen).observability.log_level)

    def test_a_malformed_rust_log_is_ignored_with_a_warning(self) -> None:
        self.assertEqual(Sections(), self.load(None, None, {"RUST_LOG": " "}))
        loaded = self.loaded(None, None, {"RUST_LOG": "a b", "DS_HTTP__ALLOW_WILDCARD_CORS": "true"} | OPEN)
        self.assertEqual("info", loaded.settings.observability.log_level)
        [warning] = loaded.warnings
        self.assertEqual(
            "RUST_LOG must be a level (trace, debug, info, warn, error or off), or a filter like "
            "info,durable_streams=debug; environment variable RUST_LOG sets it to 'a b'. The server ignores it.",
            warning,
        )

    @given(st.text("=,:[] adebugwrnhypoflus_15", max_size=20))
    def test_any_text_is_a_log_filter_or_rejected(self, text: str) -> None:
        try:
            level = level_of_filter(text)
        except ValueError:
            return
        self.assertIn(level, (None, "error", "warn", "info", "debug"))


def _paths(settings: Sections) -> tuple[str | None, str | None]:
    return settings.transport.tls.cert_path, settings.transport.tls.key_path
