"""Tests of the log: its lines cannot be broken or forged, and its level and file can change at run time."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.logger import (
    ILogObserver,
    LegacyLogObserverWrapper,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    globalLogPublisher,
)
from twisted.python import log as legacy_log
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.config.sections import ObservabilitySettings
from durable_streams.server.daemon.logs import FILE_MODE, LEVELS, Logs, as_json, as_text
from durable_streams.server.startup import StartupError
from tests.support.skipping import skip_not_permitted

TEXT = ObservabilitySettings(log_level="debug")
JSON = ObservabilitySettings(log_level="debug", log_format="json")

#: 2027-01-15T08:00:00.25Z
MOMENT = 1_800_000_000.25


class LogsTestCase(SynchronousTestCase):
    settings = TEXT

    def setUp(self) -> None:
        self.written = BytesIO()
        self.use(self.settings)

    def use(self, settings: ObservabilitySettings) -> None:
        self.logs = Logs(settings, self.written)
        self.publisher = LogPublisher(self.logs.observer)
        self.log = Logger(namespace="tests.here", observer=self.publisher)

    @property
    def text(self) -> str:
        return self.written.getvalue().decode()

    @property
    def lines(self) -> list[str]:
        """The written lines without their times."""
        self.assertTrue(not self.text or self.text.endswith("\n"))
        return [re.sub(r"\A\S+Z ", "", line) for line in self.text.splitlines()]

    def failing(self) -> Failure:
        try:
            raise ZeroDivisionError("by nought\nand a line")
        except ZeroDivisionError:
            return Failure()


class TextTests(LogsTestCase):
    def test_the_observer_provides_ilogobserver(self) -> None:
        self.assertTrue(verifyObject(ILogObserver, self.logs.observer))

    def test_a_line_has_time_level_logger_and_message(self) -> None:
        self.logs.observer(
            {
                "log_time": MOMENT,
                "log_level": LogLevel.warn,
                "log_namespace": "a.b",
                "log_format": "{name} is full.",
                "name": "a/b",
            }
        )
        self.assertEqual(self.text, "2027-01-15T08:00:00.250Z warn [a.b] a/b is full.\n")

    def test_the_line_of_a_request_has_its_id(self) -> None:
        self.log.info("It is done.", **{"request.id": "1f-2"})
        self.assertEqual(self.lines, ["info [tests.here] It is done. (request 1f-2)"])

    def test_each_line_of_a_worker_has_its_number(self) -> None:
        for form, expected in (
            (TEXT, "warn worker 2 [tests.here] It is 7.\n"),
            (JSON, '"ds.worker":2'),
        ):
            self.written.truncate(0)
            self.logs = Logs(form, self.written, worker=2)
            log = Logger(namespace="tests.here", observer=LogPublisher(self.logs.observer))
            log.warn("It is {worker}.", worker=7)
            self.assertIn(expected, self.text)

    def test_a_file_that_another_process_has_opened_is_reopened_by_its_path(self) -> None:
        path = Path(self.mktemp())
        rotated = path.with_suffix(".1")
        logs = Logs(replace(TEXT, log_file=str(path)), rotated.open("wb", 0), is_open=True)
        log = Logger(namespace="tests.here", observer=LogPublisher(logs.observer))
        log.info("before")
        self.assertFalse(path.exists())
        logs.reopen()
        self.addCleanup(logs.close)
        log.info("after")
        self.assertIn("before", rotated.read_text())
        self.assertIn("after", path.read_text())

    def test_a_traceback_is_indented(self) -> None:
        self.log.failure("It broke.", failure=self.failing(), **{"request.id": "1f-2"})  # type: ignore[arg-type]
        first, *rest = self.lines
        self.assertEqual(first, "critical [tests.here] It broke. (request 1f-2)")
        self.assertTrue(all(line.startswith("\t") for line in rest), rest)
        self.assertIn("\tbuiltins.ZeroDivisionError: by nought", rest)
        self.assertTrue(any("failing" in line for line in rest), rest)

    def test_a_logged_value_cannot_forge_a_line(self) -> None:
        self.log.info("{name}", name="a\n2027-01-15T08:00:00.250Z info [x] forged\r\x1b[2J\u2028\u202e\x85b")
        self.assertEqual(
            self.lines,
            ["info [tests.here] a", "\t2027-01-15T08:00:00.250Z info [x] forged\\r\\x1b[2J\\u2028\\u202e\\x85b"],
        )

    def test_printable_characters_are_not_escaped(self) -> None:
        self.log.info("{name}", name="Gr\u00fc\u00dfe \u6f22\u5b57 \U0001f600 {x} %s\ttab")
        self.assertEqual(self.lines, ["info [tests.here] Gr\u00fc\u00dfe \u6f22\u5b57 \U0001f600 {x} %s\ttab"])


class JsonTests(LogsTestCase):
    settings = JSON

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def test_a_line_is_an_object_with_all_fields(self) -> None:
        self.logs.observer(
            {
                "log_time": MOMENT,
                "log_level": LogLevel.warn,
                "log_namespace": "a.b",
                "log_format": "{name} is full.",
                "log_source": self,
                "name": "a/b",
                "ds.operation": "append",
                "http.response.status_code": 413,
                "http.request.method": b"POST",
                "took": 0.5,
                "nothing": None,
                "yes": True,
            }
        )
        self.assertEqual(
            self.objects,
            [
                {
                    "time": "2027-01-15T08:00:00.250Z",
                    "level": "warn",
                    "logger": "a.b",
                    "message": "a/b is full.",
                    "name": "a/b",
                    "ds.operation": "append",
                    "http.response.status_code": 413,
                    "http.request.method": "POST",
                    "took": 0.5,
                    "nothing": None,
                    "yes": True,
                }
            ],
        )

    def test_a_field_with_a_reserved_name_gets_a_prefix(self) -> None:
        self.log.info("It is.", time=7, logger="x")
        [said] = self.objects
        self.assertEqual((said["level"], said["logger"], said["message"]), ("info", "tests.here", "It is."))
        self.assertEqual((said["event.time"], said["event.logger"]), (7, "x"))

    def test_error_type_of_an_event_keeps_its_name_unless_there_is_a_traceback(self) -> None:
        fields: dict[str, Any] = {"error.type": "StreamNotFound"}
        self.log.info("It is.", **fields)
        self.log.failure("It broke.", failure=self.failing(), **fields)
        [refused, failed] = self.objects
        self.assertEqual(refused["error.type"], "StreamNotFound")
        self.assertEqual((failed["error.type"], failed["event.error.type"]), ("ZeroDivisionError", "StreamNotFound"))

    def test_a_failure_as_a_value_is_logged_as_text(self) -> None:
        self.log.failure("It broke.", failure=self.failing())
        [said] = self.objects
        self.assertEqual((said["level"], said["message"]), ("critical", "It broke."))
        self.assertEqual(said["error.type"], "ZeroDivisionError")
        self.assertIn("by nought", said["error.stack"])

    def test_values_of_any_type_are_logged(self) -> None:
        class Odd:
            def __str__(self) -> str:
                raise RuntimeError("no")

            __repr__ = __str__

        self.log.info(
            "odd",
            odd=Odd(),
            huge=2**70,
            inf=float("inf"),
            nan=float("nan"),
            half="\ud800",
            raw=b"\xff",
            type=int,
            several=["a", 1],
            failed=self.failing(),
        )
        [said] = self.objects
        self.assertEqual((said["huge"], said["inf"], said["nan"]), (str(2**70), None, None))
        self.assertEqual((said["half"], said["raw"], said["several"]), ("\\ud800", "\\xff", "['a', 1]"))
        self.assertEqual((said["type"], said["odd"]), ("<class 'int'>", "(Odd: cannot be converted to text)"))
        self.assertEqual(said["failed"], "by nought\nand a line")

    def test_an_event_with_an_invalid_format_is_logged(self) -> None:
        self.log.info("{there.is.none} {", x=1)
        [said] = self.objects
        self.assertIn("Unable to format event", said["message"])


VALUES = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp"])),
    st.binary(),
    st.integers(),
    st.floats(),
    st.none(),
    st.booleans(),
    st.lists(st.text()),
    st.tuples(st.text()),
    st.builds(object),
    st.builds(lambda: Failure(ValueError("x"))),
)
KEYS = [
    "log_time",
    "log_level",
    "log_namespace",
    "log_format",
    "log_failure",
    "log_text",
    "message",
    "time",
    "level",
    "system",
    "isError",
    "format",
    "why",
    "failure",
    "request.id",
    "ds.operation",
]
EVENTS = st.dictionaries(
    st.one_of(
        st.sampled_from(KEYS),
        st.text(max_size=5),
    ),
    VALUES,
)


class AnythingTests(LogsTestCase):
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(event=EVENTS)
    def test_every_event_is_one_line_and_raises_nothing(self, event: LogEvent) -> None:
        for wanted, write in ((JSON, as_json), (TEXT, as_text)):
            written = BytesIO()
            Logs(wanted, written).observer(dict(event))
            text = written.getvalue().decode()
            lines = text.split("\n")
            self.assertEqual(lines.pop(), "", write)
            if wanted is JSON:
                self.assertEqual(len(lines), 1)
                said = json.loads(lines[0])
                self.assertLessEqual({"time", "level", "logger", "message"}, set(said))
                self.assertIn(said["level"], LEVELS)
            else:
                self.assertTrue(all(line.startswith("\t") for line in lines[1:]), lines)
                self.assertRegex(lines[0], r"\A\S+Z [a-z]+ \[")
            self.assertTrue(all(line.replace("\t", "").isprintable() for line in lines) or wanted is JSON)

    def test_a_closed_destination_raises_nothing(self) -> None:
        class Gone:
            def write(self, data: bytes) -> None:
                raise BrokenPipeError

            def flush(self) -> None:
                raise BrokenPipeError

        observer = Logs(TEXT, Gone()).observer
        self.assertIsNone(observer({"log_format": "lost"}))  # type: ignore[func-returns-value]


class LevelTests(LogsTestCase):
    def say_all(self) -> None:
        for level in ("debug", "info", "warn", "error", "critical"):
            self.log.emit(LogLevel.lookupByName(level), level)

    def test_events_below_the_level_are_not_logged(self) -> None:
        for level, expected in (
            ("debug", ["debug", "info", "warn", "error", "critical"]),
            ("info", ["info", "warn", "error", "critical"]),
            ("warn", ["warn", "error", "critical"]),
            ("error", ["error", "critical"]),
        ):
            self.written = BytesIO()
            self.use(ObservabilitySettings(log_level=level))
            self.say_all()
            self.assertEqual([line.split()[0] for line in self.lines], expected)

    def test_the_level_can_be_changed_at_run_time(self) -> None:
        self.logs.set_level("error")
        self.say_all()
        self.assertEqual(len(self.lines), 2)
        self.logs.set_level("debug")
        self.say_all()
        self.assertEqual(len(self.lines), 7)

    def test_an_unknown_level_is_a_key_error_and_changes_nothing(self) -> None:
        self.logs.set_level("error")
        self.assertRaises(KeyError, self.logs.set_level, "loud")
        self.say_all()
        self.assertEqual(len(self.lines), 2)

    def test_events_of_twisted_are_logged_at_debug(self) -> None:
        self.logs.set_level("info")
        twisted = Logger(namespace="twisted.web.server.Site", observer=self.publisher)
        twisted.info("Starting factory.")
        twisted.warn("That is wrong.")
        self.assertEqual(self.lines, ["warn [twisted.web.server.Site] That is wrong."])


class LegacyTests(LogsTestCase):
    settings = JSON

    def said(self) -> dict[str, Any]:
        [line] = self.text.splitlines()
        said: dict[str, Any] = json.loads(line)
        return said

    def setUp(self) -> None:
        super().setUp()
        globalLogPublisher.addObserver(self.logs.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.logs.observer)

    def test_a_message_of_twisted_python_log_is_logged(self) -> None:
        legacy_log.msg("It goes", "on.", system="somewhere", port=7)
        said = self.said()
        self.assertEqual((said["message"], said["level"], said["port"]), ("It goes on.", "debug", 7))
        self.assertFalse({"system", "isError", "event.time", "event.message"} & set(said), said)

    def test_a_format_of_twisted_python_log_is_logged(self) -> None:
        legacy_log.msg(format="%(count)d times", count=3)
        self.assertEqual((self.said()["message"], self.said()["count"]), ("3 times", 3))

    def test_a_failure_of_twisted_python_log_is_logged(self) -> None:
        legacy_log.err(self.failing(), "It broke.")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        said = self.said()
        self.assertEqual((said["level"], said["error.type"]), ("critical", "ZeroDivisionError"))
        self.assertIn("It broke.", said["message"])
        self.assertIn("by nought", said["error.stack"])

    def test_an_event_passed_through_both_logging_systems_is_logged_once(self) -> None:
        wrapped = LegacyLogObserverWrapper(lambda event: self.logs.observer(event))  # type: ignore[arg-type]  # noqa: PLW0108
        wrapped({"log_format": "{x}", "x": 1, "log_level": LogLevel.info, "log_time": MOMENT, "log_namespace": "n"})
        said = self.said()
        self.assertEqual((said["message"], said["x"], said["time"]), ("1", 1, "2027-01-15T08:00:00.250Z"))


class Disk(BytesIO):
    """A file on a disk that may have room for so many bytes more only."""

    room: int | None = None

    def write(self, data: Any, /) -> int:
        if self.room is None:
            return super().write(data)
        if not self.room:
            raise OSError(28, "No space left on device")
        taken, self.room = data[: self.room], self.room - len(data[: self.room])
        return super().write(taken)


class LostLinesTests(LogsTestCase):
    def setUp(self) -> None:
        self.written = self.disk = Disk()
        self.use(self.settings)

    def test_the_number_of_lost_lines_is_logged_with_the_next_line(self) -> None:
        self.log.info("one")
        self.disk.room = 10
        for word in ("two", "three", "four"):
            self.log.info(word)
        self.disk.room = None
        self.log.info("five")
        self.log.info("six")
        first, torn, lost, fifth, sixth = self.lines
        self.assertEqual([first, fifth, sixth], [f"info [tests.here] {word}" for word in ("one", "five", "six")])
        self.assertEqual(len(torn), 10)
        self.assertTrue(
            lost.endswith(
                "error [durable_streams.server.daemon.logs] 3 log lines before this one could not be written."
            )
        )

    def test_lost_lines_are_counted_while_the_disk_stays_full(self) -> None:
        self.disk.room = 0
        self.log.info("one")
        self.disk.room = 5
        self.log.info("two")
        self.disk.room = None
        self.log.info("three")
        self.assertIn("2 log lines before this one could not be written", self.text)
        self.assertTrue(self.text.endswith("three\n"))


class FileTests(LogsTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "server.log"
        super().setUp()

    def use(self, settings: ObservabilitySettings) -> None:
        super().use(replace(settings, log_file=str(self.path)))
        self.addCleanup(self.logs.close)

    def messages(self, path: Path) -> list[str]:
        return [line.partition("] ")[2] for line in path.read_text().splitlines()]

    def test_a_line_is_written_to_the_file_at_once(self) -> None:
        self.log.info("one")
        self.assertEqual((self.messages(self.path), self.text), (["one"], ""))

    def test_a_new_log_file_is_not_readable_by_others(self) -> None:
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & ~FILE_MODE, 0)
        self.assertEqual(FILE_MODE, 0o640)

    def test_an_existing_log_file_is_appended_to(self) -> None:
        self.log.info("one")
        self.use(TEXT)
        self.log.info("two")
        self.assertEqual(self.messages(self.path), ["one", "two"])

    def test_a_rotated_log_file_is_reopened(self) -> None:
        moved = self.path.with_suffix(".1")
        self.log.info("one")
        self.path.rename(moved)
        self.log.info("two")
        self.logs.reopen()
        self.log.info("three")
        self.assertEqual((self.messages(moved), self.messages(self.path)), (["one", "two"], ["three"]))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & ~FILE_MODE, 0)

    def test_if_the_log_file_cannot_be_reopened_the_open_one_is_kept(self) -> None:
        moved = self.path.with_suffix(".1")
        globalLogPublisher.addObserver(self.logs.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.logs.observer)
        self.path.rename(moved)
        self.path.mkdir()
        self.logs.reopen()
        self.log.info("two")
        complaint, two = self.messages(moved)
        self.assertEqual(two, "two")
        self.assertIn(": Is a directory. Logging continues in the file that is open.", complaint)

    def test_reopening_leaks_no_descriptor(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            self.logs.reopen()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_log_file_that_cannot_be_opened_is_a_startup_error(self) -> None:
        path = str(self.path / "below")
        error = self.assertRaises(StartupError, Logs, ObservabilitySettings(log_file=path))
        self.assertEqual(error.phase, "validate_config")
        self.assertEqual(
            error.cause,
            f"Cannot open the log file {path} (observability.log_file): Not a directory. Create its directory, allow "
            "the server to write there, or choose another file.",
        )

    def link(self, target: Path, owner: int) -> Path:
        """Make a link, as a user of this id may."""
        if os.geteuid() != 0:
            skip_not_permitted("only root can create links that belong to other users")
        place = self.path.with_name(f"link-{owner}")
        place.symlink_to(target)
        os.lchown(place, owner, -1)
        return place

    def test_root_follows_no_link_of_another_user_to_a_log_file(self) -> None:
        precious = self.path.with_name("precious").absolute()
        precious.write_bytes(b"precious\n")
        for link, path in (
            (precious, ""),
            (precious.with_name("missing"), ""),
            (precious.parent, "/precious"),
        ):
            place = self.link(link, 65_534)
            error = self.assertRaises(StartupError, Logs, ObservabilitySettings(log_file=f"{place}{path}"))
            self.assertIn("a symbolic link in its path belongs to another user", str(error.cause))
            place.unlink()
        self.assertEqual(precious.read_bytes(), b"precious\n")
        self.assertFalse(precious.with_name("missing").exists())

    def test_root_follows_its_own_links_to_a_log_file(self) -> None:
        folder = self.path.with_name("folder")
        folder.mkdir()
        inner = folder / "inner"
        inner.symlink_to("../server.log")
        place = self.link(folder.absolute(), 0)
        before = len(os.listdir("/proc/self/fd"))
        logs = Logs(ObservabilitySettings(log_file=f"{place}/inner"))
        logs.observer({"log_level": LogLevel.info, "log_namespace": "x", "log_format": "one", "log_time": MOMENT})
        logs.close()
        self.assertEqual(self.messages(self.path), ["one"])
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_link_to_an_open_file_is_followed(self) -> None:
        with self.path.with_name("out").open("w+b") as out:
            logs = Logs(ObservabilitySettings(log_file=f"/dev/fd/{out.fileno()}"))
            logs.observer({"log_level": LogLevel.info, "log_namespace": "x", "log_format": "one", "log_time": MOMENT})
            logs.close()
            self.assertIn(b"one", out.read())

    def test_without_a_log_file_lines_go_to_the_standard_output(self) -> None:
        class Out:
            buffer = self.written

        self.patch(sys, "stdout", Out)
        logs = Logs(TEXT)
        logs.reopen()
        logs.observer({"log_format": "here", "log_namespace": "n"})
        logs.close()
        self.assertEqual(self.lines, ["info [n] here"])
