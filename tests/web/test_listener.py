"""Tests of the connection limit, the shared clock and the drain of a listener."""

from __future__ import annotations

from tests.support.cases import ChannelTestCase, get
from tests.support.fronts import BASE, settings_with
from tests.support.replies import read_replies
from tests.support.tls import TLSFront, TLSPeer


class ConnectionLimitTests(ChannelTestCase):
    settings = settings_with(max_connections=3)

    def test_connections_within_the_limit_are_served(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(3)]
        for peer in peers:
            peer.send(get("a"))
        self.assertEqual([peer.statuses for peer in peers], [[200]] * 3)

    def test_a_connection_over_the_limit_is_503_with_retry_after(self) -> None:
        for _ in range(3):
            self.front.connect()
        peer = self.front.connect()
        self.assertEqual((peer.statuses, peer.reply.code), ([503], "UNAVAILABLE"))
        self.assertEqual((peer.reply.get("retry-after"), peer.reply.get("connection")), ("1", "close"))
        self.assertTrue(peer.ended)

    def test_a_refused_client_can_send_before_it_reads_the_503(self) -> None:
        for _ in range(3):
            self.front.connect()
        peer = self.front.connect()
        peer.send(get("a") * 100)
        self.assertEqual(peer.unread_by_server, 0)
        self.assertFalse(peer.aborted)
        peer.send_no_more()
        self.assertTrue(peer.closed)
        self.assertEqual(peer.statuses, [503])

    def test_a_refused_connection_is_closed_after_a_moment(self) -> None:
        for _ in range(3):
            self.front.connect()
        peer = self.front.connect()
        self.front.pass_time(2)
        self.assertTrue(peer.closed)

    def test_a_closed_connection_makes_room_for_another(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(3)]
        self.assertEqual(self.front.connect().statuses, [503])
        peers[0].leave()
        peer = self.front.connect()
        peer.send(get("a"))
        self.assertEqual(peer.statuses, [200])

    def test_refused_connections_do_not_count_towards_the_limit(self) -> None:
        for _ in range(2):
            self.front.connect()
        for _ in range(50):
            self.front.connect().leave()
        for _ in range(1):
            last = self.front.connect()
        self.assertEqual(last.replies, [])

    def test_refusals_over_their_limit_are_answered_and_closed_at_once(self) -> None:
        for _ in range(3):
            self.front.connect()
        refused = [self.front.connect() for _ in range(150)]
        self.assertEqual([peer.statuses for peer in refused], [[503]] * 150)
        self.assertEqual(sum(peer.closed for peer in refused), 50)
        self.front.pass_time(2)
        self.assertTrue(all(peer.closed for peer in refused))
        self.assertEqual(self.front.connect().statuses, [503])


class TLSConnectionLimitTests(ChannelTestCase):
    settings = settings_with(max_connections=1)
    front_type = TLSFront

    def test_a_connection_over_the_limit_is_503_over_tls(self) -> None:
        self.front.connect()
        peer = self.front.connect()
        assert isinstance(peer, TLSPeer)
        self.assertEqual((peer.statuses, peer.told), ([503], True))


class ClockTests(ChannelTestCase):
    def test_the_date_header_is_that_of_the_present_second(self) -> None:
        self.front.create("a")
        self.assertEqual(self.front.ask("GET", BASE + "a").get("date"), "Fri, 15 Jan 2027 08:00:00 GMT")
        self.front.pass_time(61)
        self.assertEqual(self.front.ask("GET", BASE + "a").get("date"), "Fri, 15 Jan 2027 08:01:01 GMT")

    def test_the_date_follows_the_wall_clock_within_a_second_when_that_is_set(self) -> None:
        self.front.create("a")
        for step, date in ((-3600, "Fri, 15 Jan 2027 07:00:01 GMT"), (7200, "Fri, 15 Jan 2027 09:00:02 GMT")):
            self.front.clock.step(step)
            self.front.pass_time(1)
            self.assertEqual(self.front.ask("GET", BASE + "a").get("date"), date)

    def test_a_refused_connection_gets_a_date_header(self) -> None:
        self.front.channels.draining = True
        peer = self.front.connect(read_replies=False)
        reply = read_replies(bytes(peer.received))[0]
        self.assertEqual((reply.status, reply.get("date")), (503, "Fri, 15 Jan 2027 08:00:00 GMT"))

    def test_the_clock_stops_with_the_last_connection(self) -> None:
        peer = self.front.connect()
        self.front.streams.stopService()
        self.front.settle()
        self.front.channels.doStop()
        self.assertEqual(len(self.front.clock.getDelayedCalls()), 1)
        peer.leave()
        self.assertEqual(self.front.clock.getDelayedCalls(), [])
        self.front.channels.doStart()

    def test_the_clock_stops_at_once_without_connections(self) -> None:
        self.front.streams.stopService()
        self.front.settle()
        self.front.channels.doStop()
        self.assertEqual(self.front.clock.getDelayedCalls(), [])
        self.front.channels.doStart()

    def test_an_error_in_one_connection_does_not_stop_the_clock(self) -> None:
        def broken() -> None:
            raise ZeroDivisionError

        peers = [self.front.connect() for _ in range(3)]
        for peer in peers[:2]:
            peer.transport.protocol.expire = broken  # type: ignore[attr-defined]
        self.front.pass_time(17)
        self.assertEqual([(peer.closed, peer.aborted) for peer in peers], [(True, True)] * 2 + [(True, False)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.front.create("a")
        self.assertEqual(self.front.ask("GET", BASE + "a").get("date"), "Fri, 15 Jan 2027 08:00:17 GMT")

    def test_two_ports_share_one_clock(self) -> None:
        self.front.channels.doStart()
        self.front.create("a")
        self.front.channels.doStop()
        self.front.pass_time(5)
        self.assertEqual(self.front.ask("GET", BASE + "a").get("date"), "Fri, 15 Jan 2027 08:00:05 GMT")


class EndTests(ChannelTestCase):
    def test_new_connections_are_refused_during_a_drain(self) -> None:
        offset = self.front.create("a")
        poll = self.front.connect()
        poll.send(get("a", f"?offset={offset}&live=long-poll"))
        drained = self.front.channels.drain()
        self.assertEqual(self.front.connect().statuses, [503])
        self.assertNoResult(drained)
        self.front.append_directly("a", b"one", "text/plain")
        self.assertEqual(poll.statuses, [200])
        self.assertIsNone(self.successResultOf(drained))

    def test_an_abort_closes_all_connections(self) -> None:
        self.front.create("a")
        peers = [self.front.connect() for _ in range(5)]
        peers[0].send(get("a", "?offset=-1&live=sse"))
        peers[1].send(get("a", "?offset=now&live=long-poll"))
        peers[2].send(b"GET /v1")
        self.front.channels.abort()
        self.front.settle()
        self.assertTrue(all(peer.aborted for peer in peers))
        self.assertIsNone(self.successResultOf(self.front.channels.drain()))
