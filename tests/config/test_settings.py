"""Settings that a program makes itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server import ConfigError, MemoryStorage, Settings, StreamService, build_resource
from durable_streams.server.config.sections import LimitSettings, ServerSettings


class MappingTests(SynchronousTestCase):
    def refused(self, values: dict[str, Any]) -> ConfigError:
        error: ConfigError = self.assertRaises(ConfigError, Settings.from_mapping, values)
        return error

    def test_nested_and_dotted_names_set_the_same_settings(self) -> None:
        nested = {"limits": {"max_streams": 7}, "http": {"cors_origins": ["https://a.example"]}}
        dotted = {"limits.max_streams": 7, "http.cors_origins": "https://a.example"}
        for values in (nested, dotted):
            settings = Settings.from_mapping(values)
            self.assertEqual((settings.limits.max_streams, settings.http.cors_origins), (7, ("https://a.example",)))
            self.assertIs(type(settings), Settings)

    def test_an_empty_mapping_gives_the_defaults(self) -> None:
        self.assertEqual(Settings.from_mapping({}), Settings())

    def test_an_unknown_name_is_rejected_with_the_nearest_name(self) -> None:
        self.assertEqual(
            str(self.refused({"limits": {"max_stream": 1}})),
            "limits.max_stream, set by the program, is not a setting. Did you mean limits.max_streams?",
        )

    def test_a_value_of_another_type_is_refused(self) -> None:
        self.assertIn("limits.max_streams must be a whole number", str(self.refused({"limits.max_streams": "many"})))

    def test_a_broken_rule_is_refused_at_once_with_the_message_of_the_daemon(self) -> None:
        error = self.refused({"limits": {"max_streams": 0}})
        self.assertEqual(str(error), "limits.max_streams must be 1 or more; the program sets it to 0.")
        self.assertEqual((error.rule, error.phase), ("MaxStreamsTooSmall", "validate_config"))


class LoadTests(SynchronousTestCase):
    def test_load_reads_the_same_layers_as_the_daemon(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "default.toml").write_text("limits.max_streams = 5")
        given = folder / "given"
        given.write_text("limits.max_connections = 6")
        settings = Settings.load("dev", str(given), {"DS_LIMITS__MAX_TARGET_BYTES": "7"}, str(folder))
        limits = settings.limits
        self.assertEqual((limits.max_streams, limits.max_connections, limits.max_target_bytes), (5, 6, 7))
        self.assertEqual(settings.server.bind_address, "127.0.0.1:4437")
        self.assertIs(type(settings), Settings)

    def test_load_reads_the_environment_of_the_process_by_default(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.patch(os, "environ", {"DS_LIMITS__MAX_STREAMS": "3"})
        self.assertEqual(Settings.load(config_dir=str(folder)).limits.max_streams, 3)


class SectionTests(SynchronousTestCase):
    def test_a_value_of_another_type_is_a_type_error_at_once(self) -> None:
        wrong: list[tuple[Any, dict[str, Any]]] = [
            (Settings, {"http": {"cors_origins": ["*"]}}),
            (Settings, {"limits": None}),
            (LimitSettings, {"max_streams": "7"}),
            (LimitSettings, {"max_streams": True}),
            (ServerSettings, {"listen": "tcp:1"}),
            (ServerSettings, {"listen": (1,)}),
            (ServerSettings, {"bind_address": None}),
        ]
        for section, values in wrong:
            error = self.assertRaises(TypeError, section, **values)
            self.assertIn(next(iter(values)), str(error))
            self.assertIn("Settings.from_mapping", str(error))

    def test_the_type_error_hides_secrets(self) -> None:
        values: dict[str, Any] = {"listen": "ours:password=hush"}
        self.assertNotIn("hush", str(self.assertRaises(TypeError, ServerSettings, **values)))


class WarningTests(TestCase):
    def test_a_program_that_serves_the_pages_of_every_site_is_warned(self) -> None:
        observer = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        for settings, warned in (
            (Settings(), True),
            (Settings.from_mapping({"http.allow_wildcard_cors": True}), False),
        ):
            del observer._events[:]
            service = StreamService(MemoryStorage(), settings=settings)
            build_resource(service)
            self.assertEqual(any("http.cors_origins is *" in formatEvent(event) for event in observer), warned)
