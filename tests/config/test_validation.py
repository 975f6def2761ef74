from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError, parse_bind_address, validate

from .test_layers import defaults


def changed(group: Any, path: list[str], value: object) -> Any:
    inner = value if len(path) == 1 else changed(getattr(group, path[0]), path[1:], value)
    return replace(group, **{path[0]: inner})


class RuleTests(SynchronousTestCase):
    def check(self, name: str, value: object) -> None:
        validate(changed(Settings(), name.split("."), value), {name: "the test"})

    def is_right(self, name: str, value: object) -> bool:
        try:
            self.check(name, value)
        except ConfigError:
            return False
        return True

    def refused(self, name: str, value: object, shown: object = None) -> str:
        message = str(self.assertRaises(ConfigError, self.check, name, value))
        for part in (f"{name} must be ", "; the test sets it to ", repr(value if shown is None else shown)):
            self.assertIn(part, message)
        return message

    def test_the_defaults_are_valid(self) -> None:
        for name, default in defaults():
            self.assertTrue(self.is_right(name, default))

    def test_an_error_about_a_default_says_that_it_is_the_default(self) -> None:
        message = str(self.assertRaises(ConfigError, validate, changed(Settings(), ["storage", "mode"], "x"), {}))
        self.assertIn("the default sets it to 'x'", message)

    def test_numbers_below_1_are_rejected(self) -> None:
        may_be_0 = {
            "transport.connection.sse_reconnect_interval_secs": "0 (never) or more",
            "limits.max_read_bytes": "0 (no limit) or more",
            "transport.connection.min_body_bytes_per_sec": "0 (any rate) or more",
            "storage.postgres.cache_bytes": "0 (no cache) or more",
            **{name: "0 (no limit) or more" for name, _ in defaults() if name.startswith("quotas.")},
        }
        with_more_to_them = {
            "storage.acid_shard_count",
            "transport.connection.drain_spread_secs",
            "storage.postgres.commit_deadline_ms",
            *(f"auth.jwt.{name}_secs" for name in ("leeway", "refresh", "max_stale")),
        }
        names = {name for name, default in defaults() if type(default) is int}
        self.assertTrue(may_be_0.keys() < names)
        for name in names - may_be_0.keys() - with_more_to_them:
            self.assertTrue(self.is_right(name, 1))
            for value in (0, -1):
                self.assertIn("1 or more", self.refused(name, value))
        for name, sentence in may_be_0.items():
            self.assertTrue(self.is_right(name, 0))
            self.assertIn(sentence, self.refused(name, -1))

    def test_the_shard_count_must_be_a_power_of_two(self) -> None:
        for value in (1, 2, 64, 256):
            self.assertTrue(self.is_right("storage.acid_shard_count", value))
        for value in (-1, 0, 3, 512):
            self.assertIn("a power of two from 1 to 256", self.refused("storage.acid_shard_count", value))

    def test_the_schema_is_a_name_that_needs_no_quotes(self) -> None:
        for name in ("durable_streams", "a", "_1", "x" * 63, "public"):
            self.assertTrue(self.is_right("storage.postgres.schema", name), name)
        for name in ("", "1a", "a-b", "a b", 'a"b', "a.b", "pg_x", "\u00e9", "A", "x" * 64, "a;b", "a\n"):
            self.assertFalse(self.is_right("storage.postgres.schema", name), name)

    def test_a_database_needs_no_data_directory(self) -> None:
        settings = changed(changed(Settings(), ["storage", "mode"], "postgresql"), ["storage", "data_dir"], "")
        validate(settings, {})

    def test_a_storage_on_disk_needs_a_data_directory(self) -> None:
        for mode in ("file", "file-durable", "file-fast", "acid", "sqlite", "redb"):
            settings = changed(changed(Settings(), ["storage", "mode"], mode), ["storage", "data_dir"], " ")
            message = str(self.assertRaises(ConfigError, validate, settings, {}))
            self.assertIn("storage.data_dir must be the path of a directory", message)
        validate(changed(Settings(), ["storage", "data_dir"], ""), {})

    def test_an_unknown_acid_backend_is_rejected(self) -> None:
        for value in ("file", "in-memory", "memory", "inmemory"):
            self.assertTrue(self.is_right("storage.acid_backend", value))
        self.assertIn("file or in-memory", self.refused("storage.acid_backend", "tape"))

    def test_an_unknown_storage_mode_is_rejected(self) -> None:
        for value in ("", "disk", "Memory"):
            self.assertIn("memory", self.refused("storage.mode", value))

    def test_an_unknown_log_level_is_rejected(self) -> None:
        for value in ("debug", "info", "warn", "error"):
            self.assertTrue(self.is_right("observability.log_level", value))
        for value in ("", "loud", "INFO"):
            self.assertIn("debug, info, warn or error", self.refused("observability.log_level", value))

    def test_base_paths_are_validated(self) -> None:
        for value in ("/", "/v1/stream", "/a", "/a.b/c-d", "/~me/@x", "/..a", "/a..b/.c"):
            self.assertTrue(self.is_right("http.stream_base_path", value))
        for value in ("", "v1", "/v1/", "//", "/a//b", "/a b", "/a\n", "/{x}", "/a:b", "/*", "/a?b", "/a#b", "/%61"):
            self.assertIn("a path like /v1/stream", self.refused("http.stream_base_path", value))

    def test_base_paths_that_no_request_can_have_are_rejected(self) -> None:
        for value in ("/caf\u00e9", "/.", "/..", "/a/../b", "/a/.", '/"', "/<", "/\\", "/\x7f", "/^", "/|", "/`"):
            self.refused("http.stream_base_path", value)

    def test_origins_are_validated(self) -> None:
        for value in (("*",), ("null",), ("https://a.example", "http://localhost:3000", "capacitor://localhost")):
            self.assertTrue(self.is_right("http.cors_origins", value))
        for origin in ("", "a.example", "https://", "https://a.example/", "https://a.example/x", "a\r\nX: y", "**"):
            message = self.refused("http.cors_origins", ("https://good.example", origin), origin)
            self.assertIn("https://app.example.com", message)

    def test_origins_that_cannot_be_a_header_are_rejected(self) -> None:
        for origin in ("https://caf\u00e9.example", "https://a\udcff", "https://a\x00", "https://a b", "https://a,b"):
            self.refused("http.cors_origins", (origin,), origin)

    def test_an_empty_list_of_origins_is_rejected(self) -> None:
        self.assertIn("a list of origins", self.refused("http.cors_origins", (), ""))

    def test_bind_addresses_are_validated(self) -> None:
        for value in ("", "localhost:4437", "127.0.0.1", ":4437", "4437", "::1:80:"):
            self.assertIn("127.0.0.1:4437", self.refused("server.bind_address", value))


class BindAddressTests(SynchronousTestCase):
    def test_ipv4_and_ipv6_addresses_are_parsed(self) -> None:
        for text, host, port in (
            ("127.0.0.1:4437", "127.0.0.1", 4437),
            ("0.0.0.0:0", "0.0.0.0", 0),
            ("[::1]:65535", "::1", 65535),
            ("[::]:80", "::", 80),
            ("[2001:DB8:0::1]:80", "2001:db8::1", 80),
            ("[fe80::1%eth0]:80", "fe80::1%eth0", 80),
            ("127.0.0.1:0080", "127.0.0.1", 80),
        ):
            self.assertEqual((host, port), parse_bind_address(text))

    def test_malformed_addresses_are_rejected(self) -> None:
        for text in (
            "",
            ":",
            "127.0.0.1",
            "127.0.0.1:",
            ":80",
            "localhost:80",
            "127.0.0.1:65536",
            "127.0.0.1:-1",
            "127.0.0.1:+80",
            "127.0.0.1:8_0",
            "127.0.0.1: 80",
            "127.0.0.1:http",
            "127.0.0.1:\u0668\u0660",
            "127.0.0.1:" + "9" * 5000,
            "127.0.0.256:80",
            "127.1:80",
            "::1:80",
            "::1",
            "[::1]",
            "[::1",
            "[::1]80",
            "[::1:80",
            "::1]:80",
            "[]:80",
            "[localhost]:80",
            "*:80",
            "http://127.0.0.1:80",
        ):
            self.assertRaises(ValueError, parse_bind_address, text)

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.ip_addresses(), st.integers(0, 65535))
    def test_any_address_and_port_are_parsed(self, address: Any, port: int) -> None:
        text = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        host, found = parse_bind_address(text)
        self.assertEqual((address, port), (ip_address(host), found))

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text("0123456789abcdef:.[]% ", max_size=24))
    def test_any_text_is_an_address_or_rejected(self, text: str) -> None:
        try:
            host, port = parse_bind_address(text)
        except ValueError:
            return
        self.assertTrue(0 <= port <= 65535)
        self.assertEqual(host, str(ip_address(host)))
