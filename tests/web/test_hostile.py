"""
Tests of malformed and hostile requests.

Each request has the answer that it must get on either front, then the server is asked for its health on a fresh
connection. Nothing of it may show in the log as a failure of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from twisted.trial.unittest import SynchronousTestCase

from tests.support.fronts import BASE, ChannelFront, Front, Headers, SiteFront, chunked, request, settings_with
from tests.support.replies import ReplyReader

#: What came of it: the status, the problem's code, and whether the connection lives on; None where nothing came yet.
Outcome: TypeAlias = "tuple[int | None, str | None, bool]"

BAD: Final = (400, "BAD_REQUEST", True)
#: What the daemon says to what is not HTTP, and what twisted.web says.
REFUSED: Final = (400, "BAD_REQUEST", False)
REFUSED_BY_SITE: Final = (400, None, False)
SILENCE: Final = (None, None, True)
OK: Final = (200, None, True)
CREATED: Final = (201, None, True)
APPENDED: Final = (204, None, True)
BAD_NAME: Final = (400, "INVALID_STREAM_NAME", True)
BAD_OFFSET: Final = (400, "INVALID_OFFSET", True)
BAD_JSON: Final = (400, "INVALID_JSON", True)
NOT_FOUND: Final = (404, "NOT_FOUND", True)

TEXT: Final = {"Content-Type": "text/plain"}
JSON: Final = {"Content-Type": "application/json"}
SETTINGS: Final = settings_with({"long_poll_timeout_secs": 1})

GET: Final = b"GET /v1/stream/a HTTP/1.1"
POST: Final = b"POST /v1/stream/a HTTP/1.1"


def raw(line: bytes, *headers: bytes, body: bytes = b"", host: bytes | None = b"Host: streams.example") -> bytes:
    """Write a request by hand."""
    lines = [line, *([] if host is None else [host]), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(*headers: bytes, body: bytes = b"one") -> bytes:
    return raw(POST, b"Content-Type: text/plain", *headers, body=body)


def post_chunks(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


class HostileTestCase(SynchronousTestCase):
    def outcome(self, front: Front, data: bytes, method: str) -> Outcome:
        """Send bytes to a server with a stream of text and one of JSON, and return the outcome."""
        front.create("a", body=b"hello")
        front.create("j", "application/json")
        peer = front.connect(read_replies=False)
        peer.send(data)
        front.pass_time(1.5)
        # twisted.web's own refusals are not as they should be.
        reader = ReplyReader(strict=front.front == "channel")
        reader.expect(method)
        reader.feed(bytes(peer.received))
        if peer.ended:
            reader.end()
        self.assertTrue(all(reply.complete for reply in reader.replies))
        self.assertNotIn(500, [reply.status for reply in reader.replies])
        self.assertFalse(peer.aborted)
        self.assertTrue(front.is_healthy())
        if not reader.replies:
            return None, None, not peer.ended
        self.assertEqual(len(reader.replies), 1, reader.replies)
        reply = reader.replies[0]
        return reply.status, reply.code if reply.body else None, not peer.ended

    def check(self, story: str, data: bytes, channel: Outcome, site: Outcome | None, method: str = "GET") -> None:
        """Try it on both fronts; ``site`` is None where it is not for front 1 to answer."""
        fronts: list[tuple[Front, Outcome]] = [(ChannelFront(SETTINGS), channel)]
        if site is not None:
            fronts.append((SiteFront(SETTINGS), site))
        for front, wanted in fronts:
            self.assertEqual(self.outcome(front, data, method), wanted, f"{story} ({front.front}): {data[:200]!r}")
            front.stop()
            self.assertEqual(self.flushLoggedErrors(), [], story)

    def check_both(
        self,
        wanted: Outcome,
        method: str,
        target: str | bytes,
        headers: Headers | None = None,
        body: bytes = b"",
        story: str = "",
    ) -> None:
        """Try a request that is HTTP, to which both fronts have one answer."""
        data = request(method, target, headers, body)
        self.check(story or repr((target, headers, body[:60])), data, wanted, wanted, method)


class FramingTests(HostileTestCase):
    """Ambiguous framing, and bytes that are not HTTP."""

    def check_refused(self, cases: Mapping[str, bytes], site: Mapping[str, Outcome | None] | None = None) -> None:
        """Assert that the daemon and twisted.web refuse each case, except those in ``site``."""
        for story, data in cases.items():
            self.check(story, data, REFUSED, (site or {}).get(story, REFUSED_BY_SITE))

    def test_invalid_content_lengths_are_rejected(self) -> None:
        self.check_refused(
            {
                "two equal ones": post(b"Content-Length: 3", b"Content-Length: 3"),
                "two": post(b"Content-Length: 3", b"Content-Length: 4"),
                "a list": post(b"Content-Length: 3, 3"),
                "plus": post(b"Content-Length: +3"),
                "minus": post(b"Content-Length: -3"),
                "hexadecimal": post(b"Content-Length: 0x3"),
                "two numbers": post(b"Content-Length: 3 3"),
                "a fraction": post(b"Content-Length: 3.0"),
                "an exponent": post(b"Content-Length: 3e0"),
                "an underscore": post(b"Content-Length: 3_0"),
                "nothing": post(b"Content-Length:"),
                "a word": post(b"Content-Length: three"),
                "other digits": post(b"Content-Length: \xef\xbc\x93"),
                "over 64 bits": post(b"Content-Length: 99999999999999999999999"),
                "a space before the colon": post(b"Content-Length : 3"),
            },
            {"over 64 bits": SILENCE},
        )

    def test_unusual_content_lengths_are_accepted_or_413(self) -> None:
        self.check("zeros", post(b"Content-Length: " + b"0" * 9000 + b"3"), APPENDED, None)
        self.check("spaces", post(b"Content-Length:  3 \t"), APPENDED, APPENDED)
        self.check("over the limit", post(b"Content-Length: 10485761"), (413, "REQUEST_BODY_TOO_LARGE", False), None)

    def test_a_content_length_with_chunked_encoding_is_rejected(self) -> None:
        body = chunked([b"one"])
        self.check_refused(
            {
                "length first": post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=body),
                "chunks first": post(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=body),
                "zero": post(b"Content-Length: 0", b"Transfer-Encoding: chunked", body=body),
            }
        )

    def test_invalid_transfer_encodings_are_rejected(self) -> None:
        odd = (b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked, chunked", b"xchunked", b"chunked;q=1", b"")
        odder = (b"\x0bchunked", b"chunked\tx", b"cow", b"chunked,", b"'chunked'", b"\xffchunked", b"chunked\x00")
        body = chunked([b"one"])
        cases = {repr(coding): post(b"Transfer-Encoding: " + coding, body=body) for coding in odd + odder}
        cases |= {
            "twice": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=body),
            "two": post(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=body),
            "space before the colon": post(b"Transfer-Encoding : chunked", body=body),
            "folded": post(b"Transfer-Encoding:", b" chunked", body=body),
        }
        # That twisted.web takes "identity" for no coding is a matter between it and the proxy before it.
        self.check_refused(cases, {"b'identity'": None, "folded": None})
        self.check("its case", post(b"transfer-ENCODING: ChunkeD ", body=body), APPENDED, APPENDED)

    def test_invalid_chunks_are_rejected(self) -> None:
        bodies = {
            "plus": b"+3\r\none\r\n0\r\n\r\n",
            "minus": b"-3\r\none\r\n0\r\n\r\n",
            "prefix": b"0x3\r\none\r\n0\r\n\r\n",
            "huge": b"fffffffffffffffff\r\none\r\n0\r\n\r\n",
            "space behind": b"3 \r\none\r\n0\r\n\r\n",
            "space before": b" 3\r\none\r\n0\r\n\r\n",
            "no size": b"\r\none\r\n0\r\n\r\n",
            "line feeds": b"3\none\n0\n\n",
            "one line feed": b"3\none\r\n0\r\n\r\n",
            "more than it says": b"3\r\nones\r\n0\r\n\r\n",
            "less than it says": b"5\r\none\r\n0\r\n\r\n",
            "a return in an extension": b"3;a\rb\r\none\r\n0\r\n\r\n",
            "a line feed in an extension": b"3;a\nb\r\none\r\n0\r\n\r\n",
        }
        self.check_refused(
            {story: post_chunks(body) for story, body in bodies.items()}, {"huge": SILENCE, "line feeds": SILENCE}
        )

    def test_invalid_trailers_are_rejected(self) -> None:
        trailers = {
            "a length": b"Content-Length: 5",
            "a coding": b"Transfer-Encoding: chunked",
            "no header": b"no header",
            "a control character": b"X: \x00",
            "folded": b"X: y\r\n z",
        }
        for story, trailer in trailers.items():
            self.check(story, post_chunks(b"3\r\none\r\n0\r\n" + trailer + b"\r\n\r\n"), REFUSED, None)

    def test_invalid_header_lines_are_rejected(self) -> None:
        self.check_refused(
            {
                "a return in a value": raw(GET, b"X: a\rb"),
                "returns alone": b"GET /v1/stream/a HTTP/1.1\rHost: a\r\r",
                "line feeds alone": b"GET /v1/stream/a HTTP/1.1\nHost: a\n\n",
                "one line feed": b"GET /v1/stream/a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
                "a line feed at the end": b"GET /v1/stream/a HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
                "a NUL in a value": raw(GET, b"X: a\0b"),
                "a NUL in a name": raw(GET, b"X\0: b"),
                "a NUL in the target": raw(b"GET /v1/stream/a\0b HTTP/1.1"),
                "a control character in a value": raw(GET, b"X: a\x01b"),
                "a delete in a value": raw(GET, b"X: a\x7fb"),
                "an escape in the target": raw(b"GET /v1/stream/a\x1bb HTTP/1.1"),
                "no colon": raw(GET, b"X"),
                "no name": raw(GET, b": y"),
                "brackets in a name": raw(GET, b"X(y): z"),
                "an umlaut in a name": raw(GET, b"\xc3\x9c: z"),
                "a tab before the colon": raw(GET, b"X\t: y"),
                "a space before the colon": raw(GET, b"X : y"),
                "folded": raw(GET, b"X: y", b"  more"),
                "folded into the request line": raw(GET, b"X: y", host=b" Host: a"),
            },
            {
                "returns alone": SILENCE,
                "line feeds alone": SILENCE,
                "a line feed at the end": SILENCE,
                # These, twisted.web lets pass, and nobody reads them.
                "a control character in a value": OK,
                "a delete in a value": OK,
                "folded": OK,
            },
        )

    def test_invalid_request_lines_are_rejected(self) -> None:
        self.check_refused(
            {
                "HTTP/3": raw(b"GET /v1/stream/a HTTP/3"),
                "lower case": raw(b"GET /v1/stream/a http/1.1"),
                "too many digits": raw(b"GET /v1/stream/a HTTP/1.01"),
                "no dot": raw(b"GET /v1/stream/a HTTP/11"),
                "ICAP": raw(b"GET /v1/stream/a ICAP/1.0"),
                "spaces first": raw(b"   " + GET),
                "tabs between": raw(b"GET\t/v1/stream/a\tHTTP/1.1"),
                "a space in the target": raw(b"GET /v1/stream/a b HTTP/1.1"),
                "no target": raw(b"GET  HTTP/1.1"),
                "bytes over 127": raw(b"GET /v1/stream/\xc3\xa4 HTTP/1.1"),
            }
        )

    def test_unknown_http_versions_are_505(self) -> None:
        for version in (b"1.2", b"1.9"):
            self.check(repr(version), raw(b"GET /v1/stream/a HTTP/" + version), OK, None)
        wanted: Outcome = (505, "VERSION_NOT_SUPPORTED", False)
        self.check("no version", b"GET /v1/stream/a\r\n\r\n", wanted, REFUSED_BY_SITE)
        for version in (b"0.9", b"2.0", b"9.9"):
            self.check(repr(version), raw(b"GET /v1/stream/a HTTP/" + version), wanted, None)

    def test_other_protocols_are_rejected(self) -> None:
        hello = bytes.fromhex("16030100f5010000f10303") + bytes(240)
        self.check_refused(
            {
                "TLS": hello,
                "SSH": b"SSH-2.0-OpenSSH_9.0\r\n",
                "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
                "Redis": b"*1\r\n$4\r\nPING\r\n",
                "a proxy's greeting": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + raw(GET),
                "noise": b"\xff\xfe\x00" * 50 + b"\r\n\r\n",
                "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            },
            {"TLS": SILENCE, "a proxy's greeting": None},
        )

    def test_unknown_methods_are_rejected(self) -> None:
        wrong: Outcome = (405, "METHOD_NOT_ALLOWED", True)
        for method in (b"TRACE", b"PATCH", b"PROPFIND", b"M-SEARCH", b"QUERY"):
            self.check(repr(method), raw(method + b" /v1/stream/a HTTP/1.1"), wrong, wrong)
        for method in (b"get", b"FROB", b"G" * 5000, b"GE"):
            self.check(repr(method), raw(method + b" /v1/stream/a HTTP/1.1"), REFUSED, wrong)

    def test_invalid_targets_are_rejected(self) -> None:
        self.check("relative", raw(b"GET v1/stream/a HTTP/1.1"), REFUSED, BAD)
        self.check("backslashes", raw(b"GET \\v1\\stream\\a HTTP/1.1"), REFUSED, BAD)
        self.check("a star", raw(b"GET * HTTP/1.1"), REFUSED, (405, None, True))
        self.check("a star of options", raw(b"OPTIONS * HTTP/1.1"), APPENDED, OK)
        self.check("a fragment", raw(b"GET /v1/stream/a#b HTTP/1.1"), REFUSED, BAD)
        self.check("a fragment behind a query", raw(b"GET /v1/stream/a?offset=-1#b HTTP/1.1"), REFUSED, BAD)
        self.check("a fragment of a page", raw(b"GET /healthz#b HTTP/1.1"), REFUSED, BAD)
        absolute = b"GET http://streams.example/v1/stream/a#b HTTP/1.1"
        self.check("an absolute fragment", raw(absolute), REFUSED, BAD)
        self.check("another scheme", raw(b"GET ftp://streams.example/v1/stream/a HTTP/1.1"), REFUSED, BAD)
        # An absolute target, a server must accept; twisted.web does not take it apart, so that a resource refuses it.
        self.check("absolute", raw(b"GET http://streams.example/v1/stream/a HTTP/1.1"), OK, BAD)
        self.check("absolute, another path", raw(b"GET HTTP://Streams.Example/healthz HTTP/1.1"), OK, BAD)
        self.check("another host", raw(b"GET http://elsewhere/v1/stream/a HTTP/1.1"), REFUSED, None)
        self.check("another host, another path", raw(b"GET http://elsewhere/healthz HTTP/1.1"), REFUSED, None)
        for target in (
            b"http://streams.example?x=/v1/stream/a",
            b"http://streams.example",
            b"http://streams.example//v1/stream/a",
        ):
            self.check(repr(target), raw(b"GET " + target + b" HTTP/1.1"), NOT_FOUND, BAD)

    def test_targets_and_headers_over_the_limits_are_rejected(self) -> None:
        too_long: Outcome = (414, "TARGET_TOO_LONG", False)
        self.check("a long target", raw(b"GET /" + b"x" * 9000 + b" HTTP/1.1"), too_long, (*too_long[:2], True))
        self.check("10,000 segments", raw(b"GET /v1/stream/" + b"a/" * 10_000 + b" HTTP/1.1"), too_long, None)
        headers = raw(GET, *[b"X: " + b"y" * 100] * 400)
        self.check("long headers", headers, (431, "HEADERS_TOO_LARGE", False), REFUSED_BY_SITE)
        self.check("many headers", raw(GET, *[b"a:"] * 8000), OK, REFUSED_BY_SITE)


class HostTests(HostileTestCase):
    def test_a_missing_host_is_rejected(self) -> None:
        self.check("none", raw(GET, host=None), REFUSED, OK)

    def test_two_host_headers_are_rejected(self) -> None:
        for second in (b"Host: streams.example", b"Host: elsewhere", b"host:"):
            self.check(repr(second), raw(GET, second), REFUSED, BAD)

    def test_invalid_hosts_are_rejected(self) -> None:
        odd = (
            *(b"a b", b"a/b", b"a@b", b"a:port", b"a:b:c", b"a?b", b"a#b", b"a\tb", b"a\\b", b'a"b', b"\xc3\xbc"),
            *(b"::1", b"[::1", b"[v1.]", b"[:::]", b"[1.2.3.4]", b"[::1%25lo]", b"[::1]a", b"a%2", b"a%zz"),
        )
        for host in odd:
            for line in (b"PUT /v1/stream/new HTTP/1.1", b"GET /healthz HTTP/1.1"):
                data = raw(line, b"Content-Length: 0", host=b"Host: " + host)
                self.check(repr(host), data, REFUSED, BAD)

    def test_unusual_valid_hosts_are_accepted(self) -> None:
        for host in (
            *(b"", b"a:99999", b"[::1]", b"[::1]:80", b"-", b"xn--zzzz", b"192.0.2.1:80", b"a_b", b"a.", b" a "),
            *(b"a:", b":80", b"[::1]:", b"[v1.a:b]", b"[::ffff:192.0.2.1]", b"%2Frun%2Fstreams.sock", b"a" * 64),
            *(b"a." * 140, b"a..b", b"a,b", b"a;b", b"'", b"a%20b", b"x" * 4000),
        ):
            put = raw(b"PUT /v1/stream/new HTTP/1.1", b"Content-Length: 0", host=b"Host: " + host)
            self.check(repr(host), put, CREATED, CREATED)
            self.check(repr(host), raw(b"GET /healthz HTTP/1.1", host=b"Host: " + host), OK, OK)


class NameTests(HostileTestCase):
    def check_all(self, wanted: Outcome, names: Iterable[str]) -> None:
        for name in names:
            self.check_both(wanted, "PUT", BASE + name, TEXT)

    def test_invalid_percent_escapes_in_names_are_rejected(self) -> None:
        self.check_all(BAD_NAME, ("%zz", "a%", "a%2", "%", "%%41", "%u0041", "%-1"))

    def test_control_characters_in_names_are_rejected(self) -> None:
        self.check_all(BAD_NAME, ("%00", "a%00b", "a%0d%0aSet-Cookie:%20x", "a%7f", "a%C2%80", "%1b%5b2J", "%09"))

    def test_invalid_utf8_in_names_is_rejected(self) -> None:
        self.check_all(
            BAD_NAME, ("%ff", "%c3%28", "%e0%80%af", "%c0%ae%c0%ae", "%c0%af", "%ed%a0%80", "%f4%90%80%80", "a%c3")
        )

    def test_empty_and_dot_segments_in_names_are_rejected(self) -> None:
        self.check_all(
            BAD_NAME,
            (
                *("/", "//", "a/", "/a", "a//b", "%2f", "a%2F%2Fb", "a%2f"),
                *(".", "..", "./a", "a/.", "%2e", "%2e%2e", "a/%2e%2e/b", ".%2e/a", "a%2f..%2fb"),
            ),
        )

    def test_reserved_names_are_rejected(self) -> None:
        self.check_all(NOT_FOUND, ("__ds", "__ds/x", "%5f%5fds", "%5F%5Fds/sub", "_%5fds", "__ds%2fx"))
        self.check_all(CREATED, ("__DS", "a/__ds", "__dsx", "%255f%255fds"))

    def test_names_over_the_length_limits_are_rejected(self) -> None:
        self.check_all(BAD_NAME, ("x" * 1025, "%C3%A4" * 513, "/".join("123456789"), "a/" * 4000 + "a"))
        self.check_all(CREATED, ("x" * 1024, "%C3%A4" * 512, "/".join("12345678")))

    def test_unusual_valid_names_are_accepted(self) -> None:
        self.check_all(
            CREATED,
            (
                *("a:b", "a@b", "a;b=c", "a,b", "a+b", "a=b&c", "~", "a'b", "a(b)", "*", "...", "-1", "now", "a%25"),
                *('a"b', "a<b>", "a|b", "a^b", "a`b", "a{b}", "a[b]", "a\\b", "a%5Cb", "a%20b", "a%E2%80%AEb", "a%23b"),
                *("constructor", "__proto__", "CON", "con.", "%F0%9F%92%A9"),
            ),
        )

    def test_paths_outside_the_base_path_are_404(self) -> None:
        for path in (
            "/",
            "/v1/stream",
            "/v1//stream/a",
            "/v1/./stream/a",
            "/v1/x/../stream/a",
            "/v1%2Fstream/a",
            "/%ff",
        ):
            self.check_both(NOT_FOUND, "GET", path)
        for path in (
            "/healthz/",
            "/HEALTHZ",
            "/healthz/x",
            "/readyz%00",
            "/favicon.ico",
            "/%c0%af",
            "/%zz",
            "/<klein>",
        ):
            self.check_both(NOT_FOUND, "GET", path)


class QueryTests(HostileTestCase):
    def test_invalid_offsets_are_rejected(self) -> None:
        odd = (
            *(
                "",
                "0",
                "-2",
                "--1",
                "Now",
                "NOW",
                "now%20",
                "-1%00",
                "+1",
                "-1+",
                "-1;",
                "-1,now",
                "%",
                "%zz",
                "%c3%28",
            ),
            *("0_0", "00000000000000000_0000000000000000", "0000000000000000-0000000000000000", "1" * 400, "_" * 33),
            *(
                "0x00000000000000_0000000000000000",
                "-000000000000001_0000000000000000",
                "%EF%BC%91" * 16 + "_" + "0" * 16,
            ),
            *(
                "1800000000000000_000000000000000a",
                "1800000000000000_0000000000000005/",
                "9999999999999999_" + "9" * 16,
            ),
            *("-1&offset=-1", "-1&offset=now", "now&offset="),
        )
        for offset in odd:
            self.check_both(BAD_OFFSET, "GET", BASE + "a?offset=" + offset)
            self.check_both(BAD_OFFSET, "GET", BASE + "a?live=sse&offset=" + offset)

    def test_unusual_valid_offsets_are_accepted(self) -> None:
        for offset in ("%2d1", "%6e%6f%77", "0" * 16 + "_" + "0" * 16, "1800000000000000_9999999999999999"):
            self.check_both(OK, "GET", BASE + "a?offset=" + offset)
        self.check_both((410, "GONE", True), "GET", BASE + "a?offset=1700000000000000_0000000000000000")

    def test_invalid_live_modes_are_rejected(self) -> None:
        for live in ("", "SSE", "sse%00", "long_poll", "true", "x" * 5000):
            self.check_both(BAD, "GET", BASE + "a?offset=-1&live=" + live)
        self.check_both(BAD_OFFSET, "GET", BASE + "a?live=sse")
        self.check_both(BAD_OFFSET, "GET", BASE + "a?live=long-poll")

    def test_invalid_cursors_are_ignored(self) -> None:
        for cursor in ("9" * 400, "9" * 18, "-1", "abc", "", "%00", "1e9", "%EF%BC%91", "%", "0x10", "%0d%0aX:%20y"):
            self.check_both(OK, "GET", BASE + "a?offset=-1&live=long-poll&cursor=" + cursor)

    def test_unknown_query_parameters_are_ignored(self) -> None:
        for query in ("&&&=&x", "?offset=-1", "%6ffset=zzz", "OFFSET=zzz", "=", "a=" + "b" * 5000, "&" * 5000):
            self.check_both(OK, "GET", BASE + "a?" + query)


class HeaderTests(HostileTestCase):
    def test_invalid_ttls_are_rejected(self) -> None:
        odd = (
            "00",
            "01",
            "+1",
            "-1",
            "1.0",
            "1e3",
            "0x10",
            "9007199254740992",
            "9" * 400,
            "",
            "1,2",
            "inf",
            "1_000",
            "1 2",
        )
        for ttl in (*odd, b"\xd9\xa1", b"\xff"):
            self.check_both(BAD, "PUT", BASE + "t", {**TEXT, "Stream-TTL": ttl})
        for ttl in ("0", "1 ", " 5", "9007199254740991"):
            self.check_both(CREATED, "PUT", BASE + "t", {**TEXT, "Stream-TTL": ttl})

    def test_invalid_expiry_times_are_rejected(self) -> None:
        odd = (
            *(
                "2030-01-01",
                "2030-01-01 00:00:00Z",
                "2030-01-01T00:00:00",
                "2030-13-01T00:00:00Z",
                "2030-02-30T00:00:00Z",
            ),
            *("2030-01-01T24:00:00Z", "2030-01-01T00:00:61Z", "2030-01-01T00:00:00+24:00"),
            *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2030-01-01T00:00:00." + "1" * 400 + "Z", "now"),
            *("0", "1893456000", "", "-1"),
        )
        for moment in odd:
            self.check_both(BAD, "PUT", BASE + "t", {**TEXT, "Stream-Expires-At": moment})
        both = {**TEXT, "Stream-TTL": "1", "Stream-Expires-At": "2030-01-01T00:00:00Z"}
        self.check_both(BAD, "PUT", BASE + "t", both)

    def test_extreme_expiry_times_are_accepted(self) -> None:
        for moment in ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59"):
            for front in (ChannelFront(SETTINGS), SiteFront(SETTINGS)):
                headers = {**TEXT, "Stream-Expires-At": moment}
                self.assertEqual(front.ask("PUT", BASE + "t", headers).status, 201)
                self.assertIn(front.ask("HEAD", BASE + "t").status, (200, 404))
                self.assertIn(front.ask("PUT", BASE + "t", headers).status, (200, 201))
                front.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_incomplete_producer_headers_are_rejected(self) -> None:
        whole = {"Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}
        for present in range(1, 7):
            some = {name: value for bit, (name, value) in enumerate(whole.items()) if present & 1 << bit}
            self.check_both(BAD, "POST", BASE + "a", TEXT | some, b"x")

    def test_invalid_producer_headers_are_rejected(self) -> None:
        def producer(name: str | bytes = "p", epoch: str = "0", seq: str = "0") -> Headers:
            return {**TEXT, "Producer-Id": name, "Producer-Epoch": epoch, "Producer-Seq": seq}

        for headers in (
            *(producer(name) for name in ("", " ", "\t", "x" * 1025)),
            *(producer(epoch=epoch) for epoch in ("", "-1", "01", "+0", "1.0", "1e0", "9007199254740992", "9" * 400)),
            *(producer(seq=seq) for seq in ("", "-1", "00", "abc", "0x0", "0,0", "9007199254740992", "9" * 400)),
        ):
            self.check_both(BAD, "POST", BASE + "a", headers, b"x")
        for headers in (
            producer("x" * 1024),
            producer(b"\xff\xfe"),
            producer(epoch="9007199254740991"),
            producer(seq="0 "),
        ):
            self.check_both(OK, "POST", BASE + "a", headers, b"x")
        conflict: Outcome = (409, "SEQUENCE_CONFLICT", True)
        self.check_both(conflict, "POST", BASE + "a", producer(seq="9007199254740991"), b"x")

    def test_invalid_fork_headers_are_rejected(self) -> None:
        def fork(source: str | bytes, offset: str | None = None, sub_offset: str | None = None) -> Headers:
            headers: dict[str, str | bytes] = {"Stream-Forked-From": source}
            if offset is not None:
                headers["Stream-Fork-Offset"] = offset
            if sub_offset is not None:
                headers["Stream-Fork-Sub-Offset"] = sub_offset
            return headers

        odd_sources = (
            "",
            "/",
            "/v1/stream/",
            "//v1/stream/a",
            "http://streams.example/v1/stream/a",
            "/etc/passwd",
            "../a",
            "a?offset=1",
        )
        odder_sources = ("__ds/x", "/v1/stream/__ds/x", "%00", "%zz", b"\xff", "a/", "/v1/stream/a/", "x" * 1025)
        for source in odd_sources + odder_sources:
            self.check_both(BAD, "PUT", BASE + "f", fork(source))
        for offset in ("", "0", "x" * 400, "9999999999999999_9999999999999999", "1800000000000000_0000000000000006"):
            self.check_both(BAD, "PUT", BASE + "f", fork("a", offset))
        for sub_offset in ("", "-1", "01", "+1", "1.0", "6", "9" * 400):
            self.check_both(BAD, "PUT", BASE + "f", fork("a", "-1", sub_offset))
        self.check_both(BAD, "PUT", BASE + "f", {"Stream-Fork-Offset": "-1"})
        self.check_both(BAD, "PUT", BASE + "f", {"Stream-Fork-Sub-Offset": "1"})
        for name in ("none", "f", "a%3Foffset=1", "a#b"):
            self.check_both(NOT_FOUND, "PUT", BASE + "f", fork(name))
        mismatch: Outcome = (409, "CONTENT_TYPE_MISMATCH", True)
        self.check_both(mismatch, "PUT", BASE + "f", {**fork("a"), "Content-Type": "application/json"})

    def test_invalid_etags_do_not_match(self) -> None:
        tag = '"1800000000000000:0:5"'
        unchanged: Outcome = (304, None, True)
        for known in (tag, "W/" + tag, '"x", ' + tag, tag + ',"y"', "*"):
            self.check_both(unchanged, "GET", BASE + "a", {"If-None-Match": known})
        for odd in (
            '"x"',
            "",
            ",",
            ",,,",
            '"',
            "W/",
            tag[1:-1],
            tag[:-1],
            '"x' + tag[1:],
            "x" * 8000,
            b"\xff",
            '","' * 2000,
        ):
            self.check_both(OK, "GET", BASE + "a", {"If-None-Match": odd})

    def test_invalid_content_types_are_rejected(self) -> None:
        odd = (
            "",
            " ",
            "text",
            "text/",
            "/plain",
            "text/plain/x",
            "text /plain",
            'te"xt/plain',
            "text/plain, text/plain",
        )
        for content_type in (
            *odd,
            b"text/pl\xc3\xa4in",
            b"text/plain; a=\xff",
            "text/plain charset=utf-8",
            ";",
            "*/*;\xa0",
        ):
            self.check_both(BAD, "PUT", BASE + "c", {"Content-Type": content_type})
            self.check_both(BAD, "POST", BASE + "a", {"Content-Type": content_type}, b"x")

    def test_stream_closed_values_other_than_true_do_not_close(self) -> None:
        for word in ("false", "1", "yes", "", "true,true", "truee"):
            self.check_both(APPENDED, "POST", BASE + "a", {**TEXT, "Stream-Closed": word}, b"x")
            self.check_both((400, "EMPTY_BODY", True), "POST", BASE + "a", {**TEXT, "Stream-Closed": word})

    def test_duplicate_headers_are_rejected(self) -> None:
        twice = {
            "Content-Type": b"text/plain",
            "Stream-Closed": b"true",
            "Stream-Seq": b"1",
            "Stream-TTL": b"5",
            "Producer-Id": b"p",
            "Origin": b"null",
        }
        for name, value in twice.items():
            line = name.encode() + b": " + value
            data = raw(b"PUT /v1/stream/new HTTP/1.1", b"Content-Length: 0", line, line.lower())
            self.check(name, data, REFUSED, BAD)

    def test_unusual_origins_are_accepted(self) -> None:
        for origin in ("null", "*", "https://evil.example", "https://a\texample", "x" * 8000, b"\xff\xfe", ""):
            self.check_both(OK, "GET", BASE + "a", {"Origin": origin})


class InjectionTests(SynchronousTestCase):
    """Values that the server returns in headers cannot inject headers."""

    def answers(self, method: str, target: str, headers: Headers) -> Iterable[bytes]:
        for front in (ChannelFront(SETTINGS), SiteFront(SETTINGS)):
            front.create("a", body=b"hello")
            peer = front.connect(read_replies=False)
            peer.send(request(method, target, headers))
            front.stop()
            yield bytes(peer.received)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_name_cannot_inject_headers(self) -> None:
        for answer in self.answers("PUT", BASE + "a%0d%0aX-Evil:%20yes", TEXT):
            self.assertNotIn(b"\r\nX-Evil", answer)
        for answer in self.answers("PUT", BASE + "%C3%A4%20%22%3C%3E", TEXT):
            self.assertIn(b"Location: http://streams.example/v1/stream/%C3%A4%20%22%3C%3E\r\n", answer)

    def test_a_content_type_cannot_inject_headers(self) -> None:
        evil = b"text/plain; a=\xe5\x98\x8a\xe5\x98\x8dX-Evil:yes"
        for answer in self.answers("PUT", BASE + "new", {"Content-Type": evil}):
            self.assertNotIn(b"X-Evil", answer)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))

    def test_an_origin_cannot_inject_headers(self) -> None:
        for origin in (b"https://a\xe5\x98\x8dX-Evil:yes", b"https://evil.example"):
            for answer in self.answers("GET", BASE + "a", {"Origin": origin}):
                self.assertIn(b"\r\nAccess-Control-Allow-Origin: *\r\n", answer)
                self.assertNotIn(b"evil", answer.lower())

    def test_a_host_cannot_inject_headers(self) -> None:
        for host in (b"a\xe5\x98\x8dX-Evil:yes", b"evil.example/path?", b"good.example@evil.example"):
            for answer in self.answers("PUT", BASE + "new", {"Host": host}):
                self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
                self.assertNotIn(b"\r\nLocation:", answer)

    def test_a_missing_host_cannot_inject_headers(self) -> None:
        for answer in self.answers("PUT", BASE + "new", {"Host": ""}):
            self.assertIn(b"\r\nLocation: /v1/stream/new\r\n", answer)

    def test_a_problem_body_cannot_inject_markup(self) -> None:
        for answer in self.answers("GET", BASE + 'a?live="}<script>', {}):
            body = answer.partition(b"\r\n\r\n")[2]
            self.assertIn(rb'"instance":"/v1/stream/a?live=\"}<script>"', body)
            self.assertIn(b"\r\nX-Content-Type-Options: nosniff\r\n", answer)


class JsonTests(HostileTestCase):
    def check_all(self, wanted: Outcome, bodies: Iterable[bytes]) -> None:
        for body in bodies:
            self.check_both(wanted, "POST", BASE + "j", JSON, body)
            if wanted == BAD_JSON:
                self.check_both(wanted, "PUT", BASE + "new", JSON, body)

    def test_truncated_json_is_rejected(self) -> None:
        self.check_all(
            BAD_JSON, (b"{", b"[", b"]", b'{"a":', b'"a', b"nul", b"-", b"1.", b"1e", b'"\\', b'"\\u12"', b" ")
        )

    def test_almost_valid_json_is_rejected(self) -> None:
        self.check_all(
            BAD_JSON,
            (
                *(
                    b"[1,]",
                    b'{"a":1,}',
                    b"[1 2]",
                    b"1 2",
                    b"1,2",
                    b"[1],[2]",
                    b'{"a":1}{"b":2}',
                    b"{a:1}",
                    b"'a'",
                    b"[,1]",
                ),
                *(
                    b"NaN",
                    b"[NaN]",
                    b"Infinity",
                    b"-Infinity",
                    b"undefined",
                    b"True",
                    b"01",
                    b".5",
                    b"+1",
                    b"--1",
                    b"0x10",
                ),
                *(b"// x\n1", b"/**/1", b"1;", b'"\\x"', b'"\n"', b'"\x00"', b"\x00", b"1\x00", b"\x0c1", b"\xc2\xa01"),
            ),
        )

    def test_json_that_is_not_utf8_is_rejected(self) -> None:
        odd = (
            b"\xff",
            b'"\xff"',
            b'"\xed\xa0\x80"',
            b'"\xc0\x80"',
            b'"\xc3"',
            b"\xef\xbb\xbf1",
            '"a"'.encode("utf-16"),
        )
        self.check_all(BAD_JSON, odd)

    def test_deeply_nested_json_is_rejected(self) -> None:
        depth = 100_000
        self.check_all(BAD_JSON, (b"[" * depth, b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth))

    def test_an_empty_json_body_is_rejected(self) -> None:
        empty: Outcome = (400, "EMPTY_ARRAY", True)
        self.check_all(empty, (b"[]", b" [ ] ", b"[\n]"))
        self.check_all((400, "EMPTY_BODY", True), (b"",))

    def test_unusual_valid_json_is_accepted(self) -> None:
        self.check_all(
            APPENDED,
            (
                *(
                    b"[[]]",
                    b"null",
                    b'""',
                    b"0",
                    b"-0",
                    b"1e400",
                    b"1" * 5000,
                    b'{"a":1,"a":2}',
                    b'{"":{}}',
                    b'"\\ud800"',
                ),
                *(b"[" * 300 + b"]" * 300, b'"\\u0000"', b'"\xe2\x80\xa8"', b'[1,\r\n"]"]', b'["[]"]'),
            ),
        )
