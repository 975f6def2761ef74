"""Tests of rendering settings."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from durable_streams.server.config.conversion import KINDS
from durable_streams.server.config.layers import read_layers
from durable_streams.server.config.rendering import as_json, as_toml, toml_value
from durable_streams.server.config.sections import DatabaseSettings
from durable_streams.server.config.showing import concealed, shown

from .test_layering import Layer, layers, toml
from .test_layers import LoadTests, get
from .test_validation import changed


class FileTests(LoadTests):
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(layers())
    def test_the_printed_file_has_the_same_settings(self, layer: Layer) -> None:
        loaded = read_layers("prod", self.file(toml(layer)), {}, str(self.folder))
        again = read_layers(None, self.file(as_toml(loaded)), {}, str(self.folder))
        hidden = "***" if loaded.settings.storage.postgres.dsn else None
        self.assertEqual(changed(loaded.settings, ["storage", "postgres", "dsn"], hidden), again.settings)

    def test_each_setting_has_a_line_with_its_layer(self) -> None:
        self.file("limits.max_streams = 5", "local.toml")
        loaded = self.loaded("dev", None, {"DS_HTTP__CORS_ORIGINS": "https://a.example,null"}, "tcp:80")
        lines = as_toml(loaded).splitlines()
        self.assertEqual(len(KINDS), len(lines))
        for line in (
            'server.bind_address = "127.0.0.1:4437"  # profile dev',
            'server.listen = ["tcp:80"]  # --listen',
            f"limits.max_streams = 5  # {self.folder}/local.toml",
            'http.cors_origins = ["https://a.example", "null"]  # environment variable DS_HTTP__CORS_ORIGINS',
            "http.allow_wildcard_cors = false  # default",
            "# transport.tls.cert_path is not set  # default",
        ):
            self.assertIn(line, lines)

    def test_a_path_with_control_characters_stays_on_one_line(self) -> None:
        self.path = self.folder / "a\nb"
        loaded = read_layers(None, self.file("limits.max_streams = 5"), {}, str(self.folder))
        self.assertIn(f"limits.max_streams = 5  # {self.folder}/a\\nb\n", as_toml(loaded))
        self.assertEqual(5, tomllib.loads(as_toml(loaded))["limits"]["max_streams"])

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text_is_rendered_as_a_toml_string(self, text: str) -> None:
        self.assertEqual(text, tomllib.loads(f"x = {toml_value(text)}  # y")["x"])


class JsonTests(LoadTests):
    def test_the_json_has_values_sources_and_warnings(self) -> None:
        loaded = self.loaded("dev", None, {"DS_LIMITS__MAX_STREAMS": "5"})
        report: dict[str, Any] = json.loads(as_json(loaded))
        self.assertEqual({"profile", "settings", "warnings"}, set(report))
        self.assertEqual(("dev", list(loaded.warnings)), (report["profile"], report["warnings"]))
        self.assertEqual(list(KINDS), list(report["settings"]))
        for name in KINDS:
            value = get(loaded.settings, name)
            self.assertEqual(
                {
                    "value": list(value) if isinstance(value, tuple) else value,
                    "source": loaded.sources.get(name, "default"),
                },
                report["settings"][name],
            )

    def test_a_path_that_is_not_unicode_is_escaped(self) -> None:
        loaded = self.loaded(None, None, {})
        loaded = replace(loaded, sources={"limits.max_streams": "/a\udcffb"})
        self.assertEqual("/a\\udcffb", json.loads(as_json(loaded))["settings"]["limits.max_streams"]["source"])
        self.assertIn("# /a\\udcffb\n", as_toml(loaded))


class SecretTests(LoadTests):
    hidden = (
        ("https://me:hush@a.example/x", "https://***@a.example/x"),
        ("redis://:hush@h:1", "redis://***@h:1"),
        ("https://hush@a.example", "https://***@a.example"),
        ("tls:443:privateKey=hush:certKey=/c", "tls:443:privateKey=***:certKey=/c"),
        ("x:password=hu\\:sh:y=1", "x:password=***:y=1"),
        ("x:PassPhrase=hush", "x:PassPhrase=***"),
        ("x:y=1:api_token=hush", "x:y=1:api_token=***"),
        ("x:password=hu&sh;hu sh:y=1", "x:password=***:y=1"),
        ("x:apiKey=hush:auth=hush:pwd=hush", "x:apiKey=***:auth=***:pwd=***"),
        ("https://a.example/?token=hu:sh&b=1", "https://a.example/?token=***&b=1"),
        ("https://a.example/?client_secret=hush&b=1", "https://a.example/?client_secret=***&b=1"),
    )

    def test_secrets_are_hidden(self) -> None:
        for text, safe in self.hidden:
            self.assertEqual(safe, concealed(text))
            self.assertEqual(repr(safe), shown(text))
            self.assertEqual(f"['x', {safe!r}]", shown(("x", text)))

    def test_text_that_is_not_secret_is_kept(self) -> None:
        for text in ("/etc/password=x", "https://a.example", "me@a.example", "tcp:80:interface=::1", "0.0.0.0:4437"):
            self.assertEqual(text, concealed(text))

    def test_a_secret_setting_is_hidden_whatever_its_form(self) -> None:
        for dsn in ("hush", "host=h password=hush user=u", "postgresql://u:hush@h/d", "host=h user=hu\\'sh hush"):
            environment = {"DS_STORAGE__MODE": "postgres", "DS_STORAGE__POSTGRES__DSN": dsn}
            loaded = self.loaded(None, None, environment)
            self.assertEqual(loaded.settings.storage.postgres.dsn, dsn)
            for text in (as_toml(loaded), as_json(loaded).decode(), repr(loaded), str(loaded.settings)):
                self.assertNotIn("hush", text)
                self.assertNotIn("hu\\'sh", text)
                self.assertIn("***", text)

    def test_an_invalid_secret_setting_is_hidden_in_its_message(self) -> None:
        for written in ('"hush\\u0001"', '["hush"]', "{hush = 1}"):
            message = self.refused(None, self.file(f"storage.postgres.dsn = {written}"))
            self.assertIn("storage.postgres.dsn", message)
            if "=" not in written:
                self.assertNotIn("hush", message)
        error = self.assertRaises(TypeError, DatabaseSettings, dsn=b"hush")
        self.assertIn("dsn must be str or None, not '***'", str(error))

    def test_secrets_are_not_printed(self) -> None:
        endpoints = tuple(text for text, _ in self.hidden)
        loaded = self.loaded(None, None, {}, *endpoints)
        for printed in (as_toml(loaded), as_json(loaded).decode()):
            self.assertNotIn("hush", printed)
            self.assertIn("***", printed)
            self.assertNotIn("hu\\\\:sh", printed)
