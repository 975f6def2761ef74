"""The line that each request leaves in the log, for those who ask for it."""

from __future__ import annotations

from typing import cast

from msgspec.structs import replace
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher

from durable_streams.server.config.settings import ObservabilitySettings, Settings
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE

DEBUG = replace(Settings(), observability=ObservabilitySettings(log_level="debug"))


class LogTestCase(FrontTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def lines(self) -> list[str]:
        """What was logged about requests, but for how long they took."""
        ours = [event for event in self.events if event.get("log_namespace", "").endswith("request_log")]
        self.assertTrue(all(event["log_level"] is LogLevel.debug for event in ours))
        return [formatEvent(event).partition(" in ")[0] for event in ours]


@each_way
class DebugTests(LogTestCase):
    settings = DEBUG

    def test_each_request_has_a_line(self) -> None:
        self.front.create("a")
        self.front.append("a", b"one")
        self.front.ask("GET", BASE + "a")
        self.front.ask("GET", BASE + "%20?offset=x")
        self.front.ask("PATCH", BASE + "a")
        self.front.delete("a")
        self.assertEqual(
            self.lines(),
            [
                "PUT /v1/stream/a 201",
                "POST /v1/stream/a 204",
                "GET /v1/stream/a 200",
                "GET /v1/stream/%20 400",
                "PATCH /v1/stream/a 405",
                "DELETE /v1/stream/a 204",
            ],
        )

    def test_a_live_one_has_it_when_its_answer_begins(self) -> None:
        self.front.create("a")
        tail, poll = (self.front.follow(BASE + f"a?offset=now&live={live}") for live in ("sse", "long-poll"))
        self.assertEqual(self.lines()[1:], ["GET /v1/stream/a 200"])
        self.front.append("a", b"one")
        self.assertEqual(sorted(self.lines()[2:]), ["GET /v1/stream/a 200", "POST /v1/stream/a 204"])
        self.assertEqual((len(tail.replies), poll.statuses), (1, [200]))

    def test_no_secret_is_in_it(self) -> None:
        self.front.create("a")
        headers = {**TEXT, "Authorization": "Bearer hush", "Cookie": "hush", "Stream-Seq": "hush"}
        self.front.ask("POST", BASE + "a?token=hush", headers, b"hush")
        self.front.ask("GET", BASE + "a?offset=hush", headers)
        self.assertEqual(len(self.lines()), 3)
        self.assertNotIn("hush", "".join(formatEvent(event) for event in self.events))

    def test_a_name_can_forge_none(self) -> None:
        self.front.ask("PUT", BASE + "a%0aPUT%20/v1/stream/b%20201", TEXT)
        self.front.ask("PUT", BASE + "{status}%s", TEXT)
        self.assertEqual(
            self.lines(), ["PUT /v1/stream/a%0aPUT%20/v1/stream/b%20201 400", "PUT /v1/stream/{status}%s 400"]
        )


class InfoTests(LogTestCase):
    def test_otherwise_there_are_none(self) -> None:
        self.front.create("a")
        self.front.ask("GET", BASE + "a")
        self.assertEqual(self.lines(), [])
