from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.layers import PROFILES, load, setting_names
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError

Value = int | str | list[str]


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

    return walk(Settings(), "")


def variable(name: str) -> str:
    return "DS_" + name.upper().replace(".", "__")


def toml(values: dict[str, Value]) -> str:
    def written(value: Value) -> str:
        if isinstance(value, int):
            return str(value)
        if isinstance(value, str):
            return f"'{value}'"
        return "[" + ", ".join(f"'{item}'" for item in value) + "]"

    return "".join(f"{name} = {written(value)}\n" for name, value in values.items())


def as_text(value: Value) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


INTEGERS = [name for name, value in defaults() if isinstance(value, int) and name != "storage.acid_shard_count"]
PATHS = ["/v1/stream", "/", "/streams", "/a/b-c"]


@st.composite
def layers(draw: st.DrawFn) -> dict[str, Value]:
    """Draw some settings, all of them good."""
    values: dict[str, Value] = draw(st.dictionaries(st.sampled_from(INTEGERS), st.integers(1, 10**12), max_size=6))
    if draw(st.booleans()):
        values["http.stream_base_path"] = draw(st.sampled_from(PATHS))
    if draw(st.booleans()):
        values["server.bind_address"] = f"127.0.0.1:{draw(st.integers(0, 65535))}"
    if draw(st.booleans()):
        values["http.cors_origins"] = draw(st.lists(st.sampled_from(["https://a.example", "null"]), min_size=1))
    return values


_ASCII = st.text(st.characters(codec="ascii", min_codepoint=33), max_size=20)


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def file(self, text: str | bytes) -> str:
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(self.path)

    def refused(
        self, profile: str | None = None, file: str | None = None, environment: dict[str, str] | None = None
    ) -> str:
        return str(self.assertRaises(ConfigError, load, profile, file, environment or {}))


class LayerTests(LoadTests):
    def test_without_layers_there_are_the_defaults(self) -> None:
        for profile in (None, "", "default"):
            self.assertEqual(Settings(), load(profile, None, {}))
        self.assertEqual(Settings(), load(None, None, {"PATH": "/bin", "DSX": "1", "ds_limits__max_streams": "5"}))

    def test_all_names_are_listed(self) -> None:
        self.assertEqual([name for name, _ in defaults()], list(setting_names()))
        self.assertIn("transport.connection.long_poll_timeout_secs", list(setting_names()))

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(sorted(PROFILES)), layers(), layers())
    def test_what_comes_later_wins(self, profile: str, in_file: dict[str, Value], set_last: dict[str, Value]) -> None:
        environment = {variable(name): as_text(value) for name, value in set_last.items()}
        loaded = load(profile, self.file(toml(in_file)), environment)
        for name, default in defaults():
            expected = {name: default} | PROFILES[profile] | in_file | set_last
            value = expected[name]
            self.assertEqual(tuple(value) if isinstance(value, list) else value, get(loaded, name))

    def test_each_setting_can_be_set_in_a_file_and_by_the_environment(self) -> None:
        for name, default in defaults():
            for value in ("debug", "memory", "127.0.0.1:1", "/x") if isinstance(default, str) else ("8",):
                try:
                    by_environment = load(None, None, {variable(name): value})
                except ConfigError:
                    self.assertIsInstance(default, (str, tuple))
                else:
                    by_file = load(
                        None, self.file(f"{name} = {value if isinstance(default, int) else repr(value)}"), {}
                    )
                    self.assertEqual(int(value) if isinstance(default, int) else value, get(by_environment, name))
                    self.assertEqual(by_environment, by_file)
                    break
            else:
                self.assertIsInstance(default, tuple, f"{name} can't be set")

    def test_tables_and_dotted_names_are_the_same(self) -> None:
        dotted = load(None, self.file("transport.connection.idle_timeout_secs = 9"), {})
        table = load(None, self.file("[transport.connection]\nidle_timeout_secs = 9"), {})
        inline = load(None, self.file("transport = {connection = {idle_timeout_secs = 9}}"), {})
        self.assertEqual(9, dotted.transport.connection.idle_timeout_secs)
        self.assertEqual((dotted, dotted), (table, inline))

    def test_the_layers_below_keep_what_a_later_one_does_not_set(self) -> None:
        loaded = load("dev", self.file("limits.max_streams = 5"), {"DS_LIMITS__MAX_CONNECTIONS": "6"})
        self.assertEqual("127.0.0.1:4437", loaded.server.bind_address)
        self.assertEqual((5, 6), (loaded.limits.max_streams, loaded.limits.max_connections))
        self.assertEqual(Settings().limits.max_stream_bytes, loaded.limits.max_stream_bytes)

    def test_a_later_layer_can_mend_what_an_earlier_one_broke(self) -> None:
        loaded = load(None, self.file("limits.max_streams = 0"), {"DS_LIMITS__MAX_STREAMS": "1"})
        self.assertEqual(1, loaded.limits.max_streams)


class ProfileTests(LoadTests):
    def test_they_set_what_they_are_for(self) -> None:
        dev, prod = load("dev", None, {}), load("prod", None, {})
        self.assertEqual(("127.0.0.1:4437", "debug"), (dev.server.bind_address, dev.observability.log_level))
        self.assertEqual((536_870_912, 268_435_456), (prod.limits.max_memory_bytes, prod.limits.max_stream_bytes))

    def test_each_is_right_in_itself_and_sets_settings_of_the_right_type(self) -> None:
        for profile, values in PROFILES.items():
            loaded = load(profile, None, {})
            for name, value in values.items():
                self.assertEqual(value, get(loaded, name))
                self.assertIs(type(get(Settings(), name)), type(value))

    def test_case_and_spaces_around_do_not_count(self) -> None:
        self.assertEqual(load("dev", None, {}), load(" Dev\n", None, {}))

    def test_an_unknown_one_is_refused_with_those_there_are(self) -> None:
        message = self.refused("production")
        for part in ("production", *PROFILES):
            self.assertIn(part, message)


class UnknownTests(LoadTests):
    def test_a_name_that_is_no_setting_is_refused_with_the_nearest(self) -> None:
        message = self.refused(file=self.file("limits.max_stream = 5"))
        for part in ("limits.max_stream,", str(self.path), "Is it limits.max_streams?"):
            self.assertIn(part, message)

    def test_so_is_a_variable(self) -> None:
        message = self.refused(environment={"DS_SERVER__BIND_ADRESS": "x"})
        for part in ("server.bind_adress", "environment variable DS_SERVER__BIND_ADRESS", "Is it server.bind_address?"):
            self.assertIn(part, message)

    def test_where_nothing_is_near_there_is_no_hint(self) -> None:
        self.assertNotIn("Is it", self.refused(file=self.file("xyzzy = 5")))

    def test_a_group_is_no_setting_and_a_setting_no_group(self) -> None:
        for text in (
            "server = 5",
            "server = ''",
            "transport.connection = 5",
            "limits.max_streams.x = 1",
            "limits.max_streams = {x = 1}",
            "'' = 1",
            "limits.'' = 1",
        ):
            self.assertIn("is not a setting", self.refused(file=self.file(text)))
        for name in ("DS___", "DS_SERVER__", "DS_LIMITS__MAX_STREAMS__X"):
            self.assertIn(f"environment variable {name}, is not a setting", self.refused(environment={name: "1"}))

    def test_a_variable_without_a_group_is_not_meant_for_us(self) -> None:
        for name in ("DS_", "DS_SERVER", "DS_LIMITS_MAX_STREAMS", "DS_PORT_4437_TCP"):
            self.assertEqual(load(None, None, {name: "1"}), Settings())

    def test_words_may_be_in_any_case(self) -> None:
        loaded = load(None, None, {"DS_STORAGE__MODE": "Memory", "DS_OBSERVABILITY__LOG_LEVEL": "DEBUG"})
        self.assertEqual((loaded.storage.mode, loaded.observability.log_level), ("memory", "debug"))

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.builds("{}__{}".format, _ASCII, _ASCII))
    def test_any_variable_with_a_group_is_a_setting_or_refused(self, rest: str) -> None:
        try:
            loaded = load(None, None, {f"DS_{rest}": "7"})
        except ConfigError as error:
            self.assertIn(f"DS_{rest}", str(error))
        else:
            self.assertIn(rest.lower().replace("__", "."), list(setting_names()))
            self.assertNotEqual(Settings(), loaded)


class FileTests(LoadTests):
    def test_one_that_is_not_there_is_refused(self) -> None:
        message = self.refused(file="/no/such/file.toml")
        for part in ("/no/such/file.toml", "No such file"):
            self.assertIn(part, message)

    def test_so_is_a_directory(self) -> None:
        self.path.mkdir()
        self.assertIn("Is a directory", self.refused(file=str(self.path)))

    def test_what_is_not_toml_is_refused_with_the_place(self) -> None:
        message = self.refused(file=self.file("[server]\nbind_address: 'x'\n"))
        for part in (str(self.path), "not TOML", "line 2"):
            self.assertIn(part, message)

    def test_so_is_everything_else_that_toml_is_not(self) -> None:
        for text in (
            b"a = '\xff'",
            b"\xef\xbb\xbfa = 1",
            b"limits.max_streams = 5\nlimits.max_streams = 6",
            b"x = " + b"9" * 5000,
            b"x = " + b"[" * 100_000,
            b"\x00",
        ):
            self.assertIn("not TOML", self.refused(file=self.file(text)))

    def test_an_empty_one_sets_nothing(self) -> None:
        self.assertEqual(Settings(), load(None, self.file("# nothing\n[limits]\n"), {}))


class ConversionTests(LoadTests):
    def test_whole_numbers(self) -> None:
        for text, number in (("5", 5), (" 5\n", 5), ("0005", 5)):
            self.assertEqual(number, load(None, None, {"DS_LIMITS__MAX_STREAMS": text}).limits.max_streams)

    def test_what_is_no_whole_number_is_refused(self) -> None:
        for text in ("", " ", "five", "5.0", "1e3", "+5", "5 000", "5_000", "0x5", "\u0665", "9" * 19, "9" * 5000):
            message = self.refused(environment={"DS_LIMITS__MAX_STREAMS": text})
            for part in ("limits.max_streams", "whole number", "DS_LIMITS__MAX_STREAMS", repr(text)):
                self.assertIn(part, message)

    def test_what_is_no_whole_number_in_a_file_is_refused(self) -> None:
        for text in ("'five'", "5.0", "true", "[5]", "1979-05-27", "inf", "9" * 19, "-" + "9" * 19):
            message = self.refused(file=self.file(f"limits.max_streams = {text}"))
            for part in ("limits.max_streams", "whole number", str(self.path)):
                self.assertIn(part, message)

    def test_whole_numbers_have_18_digits_at_the_most(self) -> None:
        for loaded in (
            load(None, None, {"DS_LIMITS__MAX_STREAMS": "9" * 18}),
            load(None, self.file("limits.max_streams = " + "9" * 18), {}),
        ):
            self.assertEqual(10**18 - 1, loaded.limits.max_streams)
        self.assertIn("18 digits", self.refused(environment={"DS_LIMITS__MAX_STREAMS": "1" + "0" * 18}))
        self.assertIn("18 digits", self.refused(file=self.file("limits.max_streams = 1" + "0" * 18)))

    def test_a_number_that_is_too_small_is_told_so_wherever_it_is_set(self) -> None:
        self.assertIn("1 or more", self.refused(environment={"DS_LIMITS__MAX_STREAMS": "-5"}))
        self.assertIn("1 or more", self.refused(file=self.file("limits.max_streams = -5")))

    def test_texts(self) -> None:
        self.assertEqual("/x", load(None, None, {"DS_HTTP__STREAM_BASE_PATH": " /x "}).http.stream_base_path)
        for text in ("5", "true", "['/x']", "1979-05-27"):
            message = self.refused(file=self.file(f"http.stream_base_path = {text}"))
            for part in ("http.stream_base_path", "a text", str(self.path)):
                self.assertIn(part, message)

    def test_lists_of_texts(self) -> None:
        expected = ("https://a.example", "https://b.example")
        for text in ("https://a.example,https://b.example", " https://a.example , ,https://b.example,"):
            self.assertEqual(expected, load(None, None, {"DS_HTTP__CORS_ORIGINS": text}).http.cors_origins)
            self.assertEqual(expected, load(None, self.file(f"http.cors_origins = '{text}'"), {}).http.cors_origins)
        listed = self.file("http.cors_origins = ['https://a.example', 'https://b.example']")
        self.assertEqual(expected, load(None, listed, {}).http.cors_origins)
        for text in ("5", "[5]", "['https://a.example', 5]", "true"):
            message = self.refused(file=self.file(f"http.cors_origins = {text}"))
            for part in ("http.cors_origins", "a list of texts", str(self.path)):
                self.assertIn(part, message)

    def test_the_loader_knows_the_type_of_every_setting(self) -> None:
        def kinds(group: type[Struct]) -> Iterator[Any]:
            for kind in get_type_hints(group).values():
                if isinstance(kind, type) and issubclass(kind, Struct):
                    yield from kinds(kind)
                else:
                    yield kind

        self.assertEqual(set(), set(kinds(Settings)) - {int, bool, str, tuple[str, ...]})
