"""Long-polls and tails, on both fronts, whether the storage answers at once or later."""

from __future__ import annotations

import json
from base64 import b64decode
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred

from durable_streams.server.errors import DataDamaged, Unavailable
from durable_streams.server.model import Append, Fork, Lifetime, StreamConfig, StreamRestoration
from durable_streams.server.protocol import sse
from tests.support.cases import TEXT, FrontTestCase, each_way, each_way_in_turn
from tests.support.fronts import BASE, Headers, Peer, SiteFront, request, settings_with
from tests.support.late_storage import LateStorage
from tests.support.replies import Event

#: The cursor at the time when the tests begin.
CURSOR = 3_578_400


class LiveTestCase(FrontTestCase):
    def poll(self, name: str, offset: str, query: str = "", headers: Headers | None = None) -> Peer:
        """Begin a long-poll."""
        return self.front.follow(BASE + f"{name}?offset={offset}&live=long-poll{query}", headers)

    def tail(self, name: str, offset: str = "-1", query: str = "") -> Peer:
        """Begin a tail."""
        return self.front.follow(BASE + f"{name}?offset={offset}&live=sse{query}")

    def install(self, name: str, data: bytes) -> None:
        """Stage a stream, and install it in the place of another."""
        streams = self.front.streams
        config = StreamConfig("text/plain")
        outcome: Any = streams.create("__ds/staged", StreamConfig("text/plain", Lifetime(ttl=3600)), data)
        self.front.pass_time(1)
        outcome = streams.install("__ds/staged", name, StreamRestoration(config, Lifetime()), True)
        self.front.pass_time(1)
        if isinstance(outcome, Deferred):
            self.successResultOf(outcome)

    def watched(self) -> list[str]:
        """The streams with waiting readers."""
        return list(self.front.streams._waiting.watched())

    def ticks(self) -> int:
        """The number of scheduled calls, without the permanent ones."""
        ticking = self.front.channels._ticking, self.front.streams._sweeping
        own = [each.call for each in ticking if each is not None]
        return sum(call not in own for call in self.front.clock.getDelayedCalls())


@each_way
class LongPollTests(LiveTestCase):
    settings = settings_with({"long_poll_timeout_secs": 20})

    def test_a_poll_before_the_tail_is_answered_at_once(self) -> None:
        tail = self.front.create("a", body=b"hello")
        reply = self.poll("a", "-1").reply
        self.assertEqual((reply.status, bytes(reply.body), reply.get("stream-next-offset")), (200, b"hello", tail))
        self.assertEqual((reply.get("stream-cursor"), reply.get("stream-up-to-date")), (str(CURSOR), "true"))
        self.assertEqual((reply.get("content-type"), reply.get("cache-control")), ("text/plain", "no-store"))
        self.assertIsNotNone(reply.get("etag"))

    def test_a_poll_at_the_tail_is_answered_when_data_arrives(self) -> None:
        tail = self.front.create("a", body=b"hello")
        peer = self.poll("a", tail)
        self.front.pass_time(5)
        self.assertEqual(peer.replies, [])
        new_tail = self.front.append("a", b" world")
        reply = peer.reply
        self.assertEqual((reply.status, bytes(reply.body)), (200, b" world"))
        self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (new_tail, "true"))
        self.assertEqual((reply.get("stream-cursor"), reply.get("stream-closed")), (str(CURSOR), None))
        self.assertEqual(self.watched(), [])

    def test_a_poll_of_json_returns_an_array(self) -> None:
        tail = self.front.create("j", "application/json", b"[1]")
        peer = self.poll("j", tail)
        self.front.append("j", b"[2,3]", "application/json")
        self.assertEqual(peer.reply.json(), [2, 3])

    def test_a_poll_from_now_returns_only_later_data(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.poll("a", "now")
        self.assertEqual(peer.replies, [])
        self.front.append("a", b" world")
        self.assertEqual(bytes(peer.reply.body), b" world")

    def test_all_waiting_polls_are_answered(self) -> None:
        tail = self.front.create("a")
        peers = [self.poll("a", tail) for _ in range(30)]
        others = [self.poll("a", "now") for _ in range(30)]
        self.front.append("a", b"one")
        self.assertEqual([bytes(peer.reply.body) for peer in peers + others], [b"one"] * 60)
        self.assertEqual(self.watched(), [])

    def test_a_poll_without_data_is_204_after_the_timeout(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.front.pass_time(19.9)
        self.assertEqual(peer.replies, [])
        self.front.pass_time(0.3)
        reply = peer.reply
        self.assertEqual((reply.status, bytes(reply.body)), (204, b""))
        self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (tail, "true"))
        self.assertEqual((reply.get("stream-cursor"), reply.get("stream-closed")), (str(CURSOR + 1), None))
        self.assertEqual((reply.get("content-type"), reply.get("etag")), (None, None))
        self.assertEqual((reply.get("cache-control"), self.watched()), ("no-store", []))

    def test_a_close_answers_a_poll_with_204(self) -> None:
        tail = self.front.create("a", body=b"hello")
        peer = self.poll("a", tail)
        self.front.close_stream("a")
        reply = peer.reply
        self.assertEqual((reply.status, reply.get("stream-closed")), (204, "true"))
        self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (tail, "true"))

    def test_a_poll_gets_the_last_data_with_the_close(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.front.append("a", b"last", Stream_Closed="true")
        self.assertEqual((bytes(peer.reply.body), peer.reply.get("stream-closed")), (b"last", "true"))

    def test_a_poll_at_the_end_of_a_closed_stream_is_answered_at_once(self) -> None:
        tail = self.front.create("a", body=b"all", Stream_Closed="true")
        for offset in (tail, "now"):
            reply = self.poll("a", offset).reply
            self.assertEqual((reply.status, reply.get("stream-closed")), (204, "true"))
            self.assertEqual((reply.get("stream-next-offset"), reply.get("stream-up-to-date")), (tail, "true"))
        reply = self.poll("a", "-1").reply
        self.assertEqual((bytes(reply.body), reply.get("stream-closed")), (b"all", "true"))

    def test_a_deletion_answers_a_poll_with_404(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.front.delete("a")
        self.assertEqual((peer.statuses, peer.reply.code), ([404], "NOT_FOUND"))
        self.assertEqual(self.watched(), [])

    def test_a_deletion_and_recreation_answers_a_poll_with_404(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.front.streams.delete("a")
        self.front.create("a", body=b"another")
        self.front.settle()
        self.assertEqual((peer.statuses, peer.reply.code), ([404], "NOT_FOUND"))

    def test_an_installation_in_place_of_the_stream_answers_a_poll_with_404(self) -> None:
        tail = self.front.create("a", body=b"hello")
        peer = self.poll("a", tail)
        self.front.pass_time(1)
        self.install("a", b"another")
        self.front.pass_time(1)
        self.assertEqual((peer.reply.status, self.watched()), (404, []))
        self.assertEqual(self.poll("a", tail).reply.status, 410)
        self.assertEqual(bytes(self.poll("a", "-1").reply.body), b"another")

    def test_an_expiry_answers_a_poll_with_404(self) -> None:
        self.front.create("a", Stream_Expires_At="2027-01-15T08:00:05Z")
        peer = self.poll("a", "now")
        self.front.pass_time(4.9)
        self.assertEqual(peer.replies, [])
        self.front.pass_time(1)
        self.assertEqual((peer.statuses, peer.reply.code), ([404], "NOT_FOUND"))

    def test_a_waiting_poll_renews_the_ttl(self) -> None:
        self.front.create("a", Stream_TTL="3")
        peer = self.poll("a", "now")
        self.front.pass_time(15)
        self.front.append("a", b"one")
        self.assertEqual(peer.statuses, [200])

    def test_a_stop_of_the_service_answers_a_poll_with_204(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.front.streams.drain()
        self.front.settle()
        reply = peer.reply
        self.assertEqual((reply.status, reply.get("stream-next-offset")), (204, tail))
        self.assertEqual((reply.get("stream-up-to-date"), reply.get("stream-cursor")), ("true", str(CURSOR)))
        self.assertEqual(reply.get("stream-closed"), None)
        self.assertEqual(self.poll("a", tail).statuses, [204])
        self.assertEqual(self.watched(), [])

    def test_a_poll_that_disconnects_leaves_no_watcher(self) -> None:
        self.front.create("a")
        before = self.ticks()
        peers = [self.poll("a", "now") for _ in range(5)]
        self.assertEqual(self.watched(), ["a"])
        for peer in peers:
            peer.leave()
        self.assertEqual((self.watched(), self.ticks()), ([], before))

    def test_answered_polls_leave_no_watcher(self) -> None:
        self.front.create("a")
        before = self.ticks()
        peers = [self.poll("a", "now") for _ in range(5)]
        self.front.append("a", b"one")
        self.assertEqual([peer.statuses for peer in peers], [[200]] * 5)
        for peer in peers:
            peer.leave()
        self.front.settle()
        self.assertEqual((self.watched(), self.ticks()), ([], before))

    def test_a_poll_with_a_matching_etag_is_304(self) -> None:
        self.front.create("a", body=b"hello")
        tag = self.poll("a", "-1").reply.get("etag") or ""
        reply = self.poll("a", "-1", headers={"If-None-Match": tag}).reply
        self.assertEqual((reply.status, reply.get("stream-cursor")), (304, str(CURSOR)))

    def test_a_polls_cursor_is_advanced(self) -> None:
        self.front.create("a", body=b"hello")
        for given, least in (("5", CURSOR), (str(CURSOR - 1), CURSOR), (str(CURSOR), CURSOR + 1)):
            cursor = self.poll("a", "-1", f"&cursor={given}").reply.get("stream-cursor") or ""
            self.assertGreaterEqual(int(cursor), least)
            self.assertLessEqual(int(cursor), CURSOR + 180)
        ahead = self.poll("a", "-1", f"&cursor={CURSOR + 1000}").reply.get("stream-cursor") or ""
        self.assertGreater(int(ahead), CURSOR + 1000)

    def test_a_polls_malformed_cursor_is_ignored(self) -> None:
        self.front.create("a", body=b"hello")
        for odd in ("", "abc", "-5", "9" * 400, "%00"):
            self.assertEqual(self.poll("a", "-1", f"&cursor={odd}").reply.get("stream-cursor"), str(CURSOR))

    def test_the_cursor_of_a_tail_does_not_go_back_when_the_clock_is_set_back(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        self.front.pass_time(25)
        self.front.append("a", b"one")
        self.front.clock.step(-3600)
        self.front.pass_time(25)
        self.front.append("a", b"two")
        cursors = [int(event.control["streamCursor"]) for event in peer.events if event.kind == "control"]
        self.assertEqual(cursors, [CURSOR, CURSOR + 1, CURSOR + 1])
        again = self.poll("a", "-1", f"&cursor={cursors[-1]}").reply.get("stream-cursor") or ""
        self.assertGreater(int(again), cursors[-1])

    def test_a_poll_of_a_fork_is_not_woken_by_its_source(self) -> None:
        self.front.create("a", body=b"hello")
        self.assertEqual(self.front.ask("PUT", BASE + "f", {"Stream-Forked-From": "a"}).status, 201)
        self.assertEqual(bytes(self.poll("f", "-1").reply.body), b"hello")
        peer = self.poll("f", "now")
        self.front.append("a", b" source")
        self.assertEqual(peer.replies, [])
        self.front.append("f", b" fork")
        self.assertEqual(bytes(peer.reply.body), b" fork")


@each_way
class TailTests(LiveTestCase):
    settings = settings_with({"sse_reconnect_interval_secs": 0})

    def test_a_tail_has_the_content_type_and_encoding_of_server_sent_events(self) -> None:
        for content_type, encoding in (
            ("text/plain", None),
            ("text/csv; charset=utf-8", None),
            ("application/json", None),
            ("application/octet-stream", "base64"),
            ("application/ndjson", "base64"),
            ("image/png", "base64"),
        ):
            name = content_type.partition(";")[0]
            self.front.create(name, content_type)
            reply = self.tail(name).reply
            self.assertEqual((reply.status, reply.get("content-type")), (200, "text/event-stream"))
            self.assertEqual(reply.get("cache-control"), "no-cache, no-transform")
            self.assertEqual((reply.get("x-accel-buffering"), reply.framing), ("no", self.front.framing))
            self.assertEqual(reply.get("stream-sse-data-encoding"), encoding)

    def test_a_tail_begins_with_a_control_event(self) -> None:
        tail = self.front.create("a", body=b"hello")
        for offset in (tail, "now"):
            (event,) = self.tail("a", offset).events
            control = {"streamNextOffset": tail, "streamCursor": str(CURSOR), "upToDate": True}
            self.assertEqual((event.kind, event.control), ("control", control))

    def test_a_tail_sends_stored_data_first(self) -> None:
        tail = self.front.create("a", body=b"hello")
        data, control = self.tail("a").events
        self.assertEqual(data, Event("data", "hello"))
        self.assertEqual((control.control["streamNextOffset"], control.control["upToDate"]), (tail, True))

    def test_each_data_event_has_its_control_event(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        tails = [self.front.append("a", b"%d" % number) for number in range(50)]
        events = peer.events[1:]
        self.assertEqual([event.kind for event in events], ["data", "control"] * 50)
        self.assertEqual([event.data for event in events[::2]], [str(number) for number in range(50)])
        self.assertEqual([event.control["streamNextOffset"] for event in events[1::2]], tails)
        self.assertTrue(all(event.control["upToDate"] for event in events[1::2]))

    def test_the_id_of_each_event_is_the_offset_after_it(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.tail("a")
        tails = [self.front.append("a", b"%d" % number) for number in range(3)]
        ids = [line[3:].decode() for line in bytes(peer.received).split(b"\n") if line.startswith(b"id:")]
        self.assertEqual(ids[2:], [tail for tail in tails for _ in range(2)])
        self.assertEqual(ids[0], ids[1])

    def test_a_last_event_id_continues_after_that_event(self) -> None:
        tail = self.front.create("a", body=b"hello")
        self.front.append("a", b" world")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", {"Last-Event-ID": tail})
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], [" world"])

    def test_a_malformed_last_event_id_is_400_and_an_empty_one_is_ignored(self) -> None:
        self.front.create("a", body=b"hello")
        reply = self.front.ask("GET", BASE + "a?offset=-1&live=sse", {"Last-Event-ID": "7"})
        self.assertEqual((reply.status, reply.code), (400, "INVALID_OFFSET"))
        self.assertIn("Last-Event-ID", reply.json()["detail"])
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", {"Last-Event-ID": ""})
        self.assertEqual(peer.events[0].data, "hello")

    def test_a_last_event_id_of_an_earlier_stream_of_the_name_is_410(self) -> None:
        tail = self.front.create("a", body=b"hello")
        self.front.ask("DELETE", BASE + "a")
        self.front.pass_time(1)
        self.front.create("a", body=b"again")
        reply = self.front.ask("GET", BASE + "a?offset=-1&live=sse", {"Last-Event-ID": tail})
        self.assertEqual(reply.status, 410)

    def test_a_last_event_id_is_ignored_by_other_reads(self) -> None:
        tail = self.front.create("a", body=b"hello")
        for query in ("", "&live=long-poll"):
            reply = self.front.ask("GET", BASE + "a?offset=-1" + query, {"Last-Event-ID": tail})
            self.assertEqual(bytes(reply.body), b"hello")

    def test_json_events_are_arrays(self) -> None:
        self.front.create("j", "application/json", b'[1,{"a":[]}]')
        peer = self.tail("j")
        self.front.append("j", b'"two\\nlines"', "application/json")
        arrays = [json.loads(event.data) for event in peer.events if event.kind == "data"]
        self.assertEqual(arrays, [[1, {"a": []}], ["two\nlines"]])

    def test_json_of_several_lines_is_valid_json_in_an_event(self) -> None:
        self.front.create("j", "application/json", b'{\r\n "a":\n 1\r}')
        (array,) = (json.loads(event.data) for event in self.tail("j").events if event.kind == "data")
        self.assertEqual(array, [{"a": 1}])

    def test_text_events_preserve_every_line(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        texts = (
            *(
                "plain",
                " one space",
                "  two",
                "a\nb",
                "\n",
                "\n\n",
                "ends\n",
                "\nbegins",
                "data: x\n\nevent: control\n",
                ":",
            ),
            *("tab\t", "\u00e4\u2028\u2029\u0085", "id: 5\nretry: 1", "\x00\x1b", "\ufeffmark"),
        )
        for text in texts:
            self.front.append("a", text.encode())
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], list(texts))
        self.assertEqual({event.kind for event in peer.events}, {"data", "control"})

    def test_carriage_returns_in_text_become_newlines(self) -> None:
        self.front.create("a", body=b"a\rb\r\nc\n\rd\r")
        self.assertEqual(self.tail("a").events[0].data, "a\nb\nc\n\nd\n")

    def test_bytes_are_sent_in_base64(self) -> None:
        data = bytes(range(256)) * 40
        self.front.create("b", "application/octet-stream", data)
        peer = self.tail("b")
        self.front.append("b", b"\x00", "application/octet-stream")
        first, second = (event for event in peer.events if event.kind == "data")
        self.assertEqual(b64decode("".join(first.data.split("\n")), validate=True), data)
        self.assertEqual(b64decode(second.data, validate=True), b"\x00")

    def test_much_data_is_sent_in_several_events(self) -> None:
        self.front.create("a")
        for number in range(40):
            self.front.append_directly("a", b"%02d" % number + b"x" * 9_998, "text/plain")
        peer = self.tail("a")
        self.front.settle()
        data = [event.data for event in peer.events if event.kind == "data"]
        controls = [event.control for event in peer.events if event.kind == "control"]
        self.assertEqual("".join(data), "".join(f"{number:02}" + "x" * 9_998 for number in range(40)))
        self.assertGreater(len(data), 4)
        self.assertLessEqual(max(map(len, data)), 65_536)
        self.assertEqual(["upToDate" in control for control in controls], [False] * (len(data) - 1) + [True])

    def test_events_end_at_the_ends_of_appends(self) -> None:
        self.front.create("a")
        for _ in range(5):
            self.front.append_directly("a", b"x" * 50_000, "text/plain")
        self.front.append_directly("a", b"y" * 200_000, "text/plain")
        peer = self.tail("a")
        self.front.settle()
        sizes = [len(event.data) for event in peer.events if event.kind == "data"]
        self.assertEqual(sizes, [50_000] * 5 + [200_000])

    def test_a_close_ends_a_tail(self) -> None:
        tail = self.front.create("a", body=b"hello")
        peer = self.tail("a", tail)
        self.front.close_stream("a")
        control = peer.events[-1].control
        self.assertEqual((control["streamClosed"], control["streamNextOffset"]), (True, tail))
        self.assertNotIn("streamCursor", control)
        self.assertTrue(peer.reply.complete)
        self.assertEqual(self.watched(), [])

    def test_a_tail_gets_the_last_data_with_the_close(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        self.front.append("a", b"last", Stream_Closed="true")
        self.assertEqual(peer.events[-2], Event("data", "last"))
        self.assertTrue(peer.events[-1].control["streamClosed"])
        self.assertTrue(peer.reply.complete)

    def test_a_tail_of_a_closed_stream_sends_all_data_and_ends(self) -> None:
        tail = self.front.create("a", body=b"all", Stream_Closed="true")
        for offset, kinds in (("-1", ["data", "control"]), (tail, ["control"]), ("now", ["control"])):
            peer = self.tail("a", offset)
            self.assertEqual([event.kind for event in peer.events], kinds)
            control = {"streamNextOffset": tail, "upToDate": True, "streamClosed": True}
            self.assertEqual(peer.events[-1].control, control)
            self.assertTrue(peer.reply.complete)

    def test_a_deletion_ends_a_tail(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.tail("a")
        self.front.delete("a")
        self.assertTrue(peer.reply.complete)
        self.assertNotIn("streamClosed", peer.events[-1].control)
        self.assertEqual(self.watched(), [])

    def test_a_recreation_ends_a_tail_without_the_new_data(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.tail("a")
        self.front.streams.delete("a")
        self.front.create("a", body=b"another")
        self.front.settle()
        self.assertTrue(peer.reply.complete)
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], ["hello"])

    def test_a_stop_of_the_service_ends_tails(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.tail("a")
        self.front.streams.drain()
        self.front.settle()
        self.assertTrue(peer.reply.complete)
        self.assertEqual(self.watched(), [])
        late = self.tail("a")
        self.assertEqual([event.kind for event in late.events], ["data", "control"])
        self.assertTrue(late.reply.complete)

    def test_the_ends_of_tails_are_spread_over_the_drain_interval(self) -> None:
        self.front.stop()
        self.front = self.front_type(settings_with({"drain_spread_secs": 10}), late=self.late)
        self.front.create("a", body=b"hello")
        peers = [self.tail("a") for _ in range(40)]
        gone = self.tail("a")
        self.front.streams.drain()
        self.front.settle()
        gone.leave()
        ended = []
        for _ in range(10):
            self.front.pass_time(1)
            ended.append(sum(peer.reply.complete for peer in peers))
        self.assertLess(ended[0], 30)
        self.assertEqual((ended[-1], sorted(ended)), (40, ended))
        self.assertEqual(self.watched(), [])

    def test_a_tail_sends_keep_alive_comments(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        heard = [self.front.clock.seconds()]
        seen = len(peer.reply.body)
        for _ in range(400):
            self.front.pass_time(0.25)
            if len(peer.reply.body) > seen:
                heard.append(self.front.clock.seconds())
                seen = len(peer.reply.body)
            if len(heard) == 4:
                self.front.append("a", b"something")
        gaps = [later - earlier for earlier, later in pairwise(heard)]
        self.assertLessEqual(max(gaps), 15.0)
        self.assertGreater(len(heard), 6)
        self.assertEqual({event.kind for event in peer.events}, {"control", "data", ":"})

    def test_a_tail_that_disconnects_leaves_no_watcher(self) -> None:
        self.front.create("a")
        before = self.ticks()
        peers = [self.tail("a") for _ in range(5)]
        self.assertEqual(self.watched(), ["a"])
        for peer in peers:
            peer.leave()
        self.assertEqual((self.watched(), self.ticks(), len(self.front.operations.live._tails)), ([], before, 0))

    def test_a_tails_cursor_is_advanced(self) -> None:
        self.front.create("a")
        peer = self.tail("a", "-1", f"&cursor={CURSOR + 100}")
        self.front.pass_time(25)
        self.front.append("a", b"one")
        cursors = [int(event.control["streamCursor"]) for event in peer.events if event.kind == "control"]
        self.assertGreater(cursors[0], CURSOR + 100)
        self.assertEqual(cursors, sorted(cursors))
        peer = self.tail("a")
        self.front.pass_time(25)
        self.front.append("a", b"two")
        cursors = [int(event.control["streamCursor"]) for event in peer.events if event.kind == "control"]
        self.assertEqual(cursors, [CURSOR + 1, CURSOR + 2])

    def test_a_tail_of_a_fork_does_not_follow_its_source(self) -> None:
        self.front.create("a", body=b"hello")
        self.assertEqual(self.front.ask("PUT", BASE + "f", {"Stream-Forked-From": "a"}).status, 201)
        peer = self.tail("f")
        self.front.append("a", b" source")
        self.front.append("f", b" fork")
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], ["hello", " fork"])

    def test_an_event_is_encoded_once_for_all_tails(self) -> None:
        made: list[bytes] = []
        data_event = sse.data_event

        def counted(data: bytes, json: bool, text: bool, offset: str) -> bytes:
            made.append(data)
            return data_event(data, json, text, offset)

        self.patch(sse, "data_event", counted)
        self.front.create("a")
        peers = [self.tail("a") for _ in range(100)]
        for number in range(5):
            self.front.append("a", b"%d" % number)
        self.assertEqual(made, [b"0", b"1", b"2", b"3", b"4"])
        for peer in peers:
            self.assertEqual([event.data for event in peer.events if event.kind == "data"], ["0", "1", "2", "3", "4"])

    def test_no_data_is_read_for_a_paused_tail(self) -> None:
        self.front.create("a")
        peer = self.front.follow(BASE + "a?offset=-1&live=sse", room=2_000)
        for _ in range(30):
            self.front.append("a", b"x" * 10_000)
        reads: list[int] = []
        read = self.front.storage.read

        def counted(*arguments: object, **named: object) -> object:
            reads.append(1)
            return read(*arguments, **named)

        self.patch(self.front.storage, "read", counted)
        for _ in range(30):
            self.front.append_directly("a", b"x" * 10_000, "text/plain")
        self.assertEqual(reads, [])
        peer.read_freely()
        self.front.settle()
        self.assertEqual(sum(len(event.data) for event in peer.events if event.kind == "data"), 600_000)


@each_way
class ReconnectTests(LiveTestCase):
    settings = settings_with({"sse_reconnect_interval_secs": 30})

    def test_a_tail_ends_after_the_reconnect_interval(self) -> None:
        self.front.create("a", body=b"hello")
        peer = self.tail("a")
        self.front.pass_time(29)
        self.assertFalse(peer.reply.complete)
        self.front.pass_time(3)
        self.assertTrue(peer.reply.complete)
        self.assertEqual([event.kind for event in peer.events][:2], ["data", "control"])
        self.assertNotIn("streamClosed", peer.events[1].control)
        self.assertFalse(peer.aborted)
        self.assertEqual(self.watched(), [])

    def test_the_connection_is_kept_for_the_reconnect(self) -> None:
        tail = self.front.create("a", body=b"hello")
        peer = self.tail("a")
        self.front.pass_time(32)
        peer.send_request("GET", BASE + f"a?offset={tail}&live=sse")
        self.front.append("a", b" world")
        self.assertEqual(len(peer.replies), 2)
        self.assertEqual([event.data for event in peer.events if event.kind == "data"], [" world"])


@each_way_in_turn
class PipelinedTailTests(LiveTestCase):
    settings = settings_with({"sse_reconnect_interval_secs": 30})

    def test_pipelined_tails_are_served_one_after_the_other(self) -> None:
        self.front.create("a")
        peer = self.front.connect()
        for _ in range(3):
            peer.send(request("GET", BASE + "a?offset=-1&live=sse"))
        for count in range(1, 4):
            self.front.pass_time(25)
            self.front.append("a", b"%d" % count)
            self.assertEqual(len(peer.replies), count)
            self.assertEqual(peer.events[-2].data, str(count))
            self.front.pass_time(6)
        self.assertEqual(peer.statuses, [200] * 3)
        self.assertEqual([reply.body.count(b":\n\n") for reply in peer.replies], [1, 1, 1])

    def test_a_busy_tail_ends_after_the_reconnect_interval(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        for number in range(40):
            self.front.pass_time(1)
            if not peer.reply.complete:
                self.front.append("a", b"%d," % number)
        self.assertTrue(peer.reply.complete)
        text = "".join(event.data for event in peer.events if event.kind == "data")
        offset = [event.control["streamNextOffset"] for event in peer.events if event.kind == "control"][-1]
        self.assertEqual(int(offset.partition("_")[2]), len(text))


class LateTests(LiveTestCase):
    """Cases that need a slow storage."""

    late = True
    settings = settings_with({"sse_reconnect_interval_secs": 0})

    def setUp(self) -> None:
        super().setUp()
        storage = self.front.storage
        assert isinstance(storage, LateStorage)
        self.storage = storage

    def commit(self, data: bytes) -> None:
        """Append directly to the storage."""
        self.storage._inner.append("a", Append("text/plain", data), self.front.clock.seconds())

    def test_data_that_arrives_during_a_read_is_sent(self) -> None:
        tail = self.front.create("a")
        self.storage.delay = 1
        follower, poll = self.tail("a", tail), self.poll("a", tail)
        for number in range(12):
            self.front.pass_time(0.4, 0.1)
            self.commit(b"%d," % number)
        self.front.pass_time(10)
        text = "".join(event.data for event in follower.events if event.kind == "data")
        self.assertEqual(text, "0,1,2,3,4,5,6,7,8,9,10,11,")
        self.assertEqual(poll.statuses, [200])
        self.assertTrue(bytes(poll.reply.body).startswith(b"0,"))

    def test_a_poll_returns_data_that_arrived_during_its_last_read(self) -> None:
        tail = self.front.create("a")
        for moment in range(1, 40):
            self.storage.delay = 0.3
            peer = self.poll("a", tail)
            self.front.pass_time(moment * 0.05, 0.05)
            self.commit(b"x")
            self.front.pass_time(2, 0.1)
            self.assertEqual(peer.statuses, [200], moment)
            tail = peer.reply.get("stream-next-offset") or ""
            peer.leave()

    def test_a_live_read_stopped_during_a_read_ends_once(self) -> None:
        tail = self.front.create("a")
        self.storage.delay = 1
        follower, poll = self.tail("a", tail), self.poll("a", tail)
        self.front.pass_time(1.5)
        self.front.streams.drain()
        self.front.pass_time(5)
        self.assertEqual((poll.statuses, follower.reply.complete), ([204], True))
        self.assertEqual(self.watched(), [])

    def test_a_timeout_during_a_read_answers_the_poll(self) -> None:
        tail = self.front.create("a")
        poll = self.poll("a", tail)
        self.front.pass_time(29.8)
        self.storage.delay = 1
        self.front.streams._waiting.committed("a")
        self.front.pass_time(3)
        self.assertEqual(poll.statuses, [204])

    def test_a_storage_that_fails_ends_a_tail(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        self.storage.failures["read"] = [Unavailable("The storage is busy.")]
        self.front.append("a", b"one")
        self.assertTrue(peer.reply.complete)
        peer = self.tail("a")
        self.storage.failures["read"] = [ZeroDivisionError("a bug")]
        self.front.append("a", b"two")
        self.assert_broken_off(peer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.watched(), [])

    def test_damaged_data_aborts_a_tail_and_is_logged_by_the_storage(self) -> None:
        self.front.create("a")
        peer = self.tail("a")
        self.storage.failures["read"] = [DataDamaged("a")]
        self.front.append("a", b"one")
        self.assert_broken_off(peer)
        self.assertEqual(self.watched(), [])

    def test_damaged_data_answers_a_long_poll_with_500(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.storage.failures["read"] = [DataDamaged("a")]
        self.front.append("a", b"one")
        self.assertEqual((peer.statuses, peer.reply.code), ([500], "DATA_DAMAGED"))
        self.assertEqual(self.watched(), [])

    def assert_broken_off(self, peer: Peer) -> None:
        self.assertTrue(peer.aborted)
        self.assertFalse(peer.reply.complete)

    def test_a_storage_that_fails_answers_a_long_poll_with_503(self) -> None:
        tail = self.front.create("a")
        peer = self.poll("a", tail)
        self.storage.failures["read"] = [Unavailable("The storage is busy.")]
        self.front.append("a", b"one")
        self.assertEqual((peer.statuses, peer.reply.code), ([503], "UNAVAILABLE"))
        self.assertEqual(self.watched(), [])

    def test_an_unexpected_error_ends_only_the_tails_of_its_stream(self) -> None:
        self.front.create("a")
        self.front.create("b")
        peers = [self.tail("a") for _ in range(3)]
        other = self.tail("b")
        self.storage.broken["read"] = ZeroDivisionError("a bug")
        self.front.append("a", b"one")
        for peer in peers:
            self.assert_broken_off(peer)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.storage.broken.clear()
        self.front.append("b", b"two")
        self.assertEqual(other.events[-2], Event("data", "two"))

    def test_a_reader_that_disconnects_during_a_read_is_released(self) -> None:
        self.front.create("a")
        for begin in (self.tail, self.poll):
            self.storage.delay = 0.001
            peer = begin("a", "now")
            self.storage.delay = 1
            self.front.streams._waiting.committed("a")
            self.front.pass_time(0.5)
            peer.leave()
            self.front.pass_time(3)
            self.assertEqual(self.watched(), [])
        self.storage.delay = 0.001
        self.assertTrue(self.front.is_healthy())


class LateOnSiteTests(LateTests):
    """The same behind a Site."""

    front_type = SiteFront


class SameMomentTests(LiveTestCase):
    """A stream that is deleted and recreated before its waiting readers are woken."""

    def setUp(self) -> None:
        super().setUp()
        self.offset = self.front.create("a", body=b"hello")
        self.front.ask("PUT", BASE + "f", {"Stream-Forked-From": "a"})

    def make_anew(self) -> None:
        """Make both anew. The fork has the same offsets as before."""
        self.front.streams.delete("f")
        self.front.streams.create("f", StreamConfig(fork=Fork("a")), b"another")
        self.front.settle()
        self.front.delete("f")
        self.front.streams.delete("a")
        self.front.streams.create("a", StreamConfig("text/plain"), b"another")
        self.front.settle()

    def test_a_recreation_in_one_turn_answers_polls_with_404(self) -> None:
        peers = [self.poll(name, self.offset) for name in ("a", "f")]
        self.make_anew()
        self.assertEqual([(peer.statuses, peer.reply.code) for peer in peers], [([404], "NOT_FOUND")] * 2)
        self.assertEqual(self.watched(), [])

    def test_a_recreation_in_one_turn_ends_tails(self) -> None:
        peers = [self.tail(name, self.offset) for name in ("a", "f")]
        self.make_anew()
        self.assertEqual([peer.reply.complete for peer in peers], [True, True])
        self.assertEqual([event.kind for peer in peers for event in peer.events], ["control", "control"])
        self.assertEqual(self.watched(), [])


class SameMomentOnSiteTests(SameMomentTests):
    """The same behind a Site."""

    front_type = SiteFront


class PolitenessTests(LiveTestCase):
    def test_a_head_with_a_live_query_is_answered_as_a_head(self) -> None:
        self.front.create("a", body=b"hello")
        reply = self.front.ask("HEAD", BASE + "a?offset=-1&live=sse", TEXT)
        self.assertEqual((reply.status, reply.get("content-type")), (200, "text/plain"))
