"""The commands for streams as processes, against a server: their output, exit status and errors."""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import tempfile
import time
from base64 import b64decode
from functools import cache
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, command, environment, run_command
from tests.support.daemon import PATIENCE, Daemon, free_port
from tests.support.tls_daemon import Certificates, TLSDaemon


@cache
def shared_daemon() -> Daemon:
    """Return the server of all tests that do not need one of their own."""
    daemon = Daemon()
    atexit.register(daemon.close)
    return daemon.__enter__()


class CommandTestCase(SynchronousTestCase):
    """A test case with a server and a folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.url = f"http://127.0.0.1:{shared_daemon().port}"

    def run_it(self, *arguments: object, stdin: bytes = b"", status: int = 0) -> str:
        """Run a command that ends with a status, and return its output."""
        ended = run_command(*arguments, stdin=stdin, folder=self.folder, url=self.url)
        self.assertEqual(status, ended.returncode, ended.stderr.decode())
        if status == 0:
            self.assertEqual("", ended.stderr.decode())
        return ended.stdout.decode()

    def fails(self, *arguments: object, stdin: bytes = b"", status: int = 1, **settings: object) -> str:
        """Run a command that fails without output, and return its message."""
        ended = run_command(*arguments, stdin=stdin, folder=self.folder, **({"url": self.url} | settings))
        self.assertEqual((status, b""), (ended.returncode, ended.stdout), ended.stderr.decode())
        message = ended.stderr.decode()
        self.assertNotIn("Traceback", message)
        return message

    def start(self, *arguments: object, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command."""
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=environment(url=self.url),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        self.addCleanup(self.end, process)
        return process

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


class OneStreamTests(CommandTestCase):
    def test_a_stream_is_created_appended_to_read_closed_and_deleted(self) -> None:
        created = self.run_it("create", "life", "one ", "--content-type", "text/plain", "--ttl", 3600)
        self.assertTrue(created.startswith(f"Created {self.url}/v1/stream/life (text/plain)"), created)
        self.assertTrue(
            self.run_it("create", "life", "--content-type", "text/plain", "--ttl", 3600).startswith(self.url)
        )
        self.assertTrue(self.run_it("append", "life", "two ", "three").startswith("2 appends to"))
        self.assertEqual("one two three", self.run_it("read", "life"))
        self.assertEqual("one two three", self.run_it("read", f"{self.url}/v1/stream/life"))
        head = json.loads(self.run_it("head", "life", "--json"))
        self.assertEqual(("text/plain", False, 3600), (head["content_type"], head["closed"], head["ttl_seconds"]))
        self.assertIn("open", self.run_it("head", "life"))
        self.assertEqual("", self.run_it("read", "life", "--from", "now"))
        self.assertEqual("", self.run_it("read", "life", "--from", head["next_offset"]))
        self.run_it("close", "life")
        self.assertEqual("one two three", self.run_it("tail", "life"))
        self.assertIn("closed", self.fails("append", "life", "x"))
        self.assertTrue(self.run_it("delete", "life").startswith("Deleted"))
        self.assertIn("or use --missing-ok if that is no error", self.fails("delete", "life"))
        self.assertEqual(
            {"url": f"{self.url}/v1/stream/life", "deleted": False},
            json.loads(self.run_it("delete", "life", "--missing-ok", "--json")),
        )

    def test_results_are_json_on_request(self) -> None:
        created = json.loads(self.run_it("create", "j", "--content-type", "text/plain", "--json"))
        self.assertEqual((True, "text/plain", False), (created["new"], created["content_type"], created["closed"]))
        appended = json.loads(self.run_it("append", "j", "abc", "--close", "--json"))
        self.assertEqual((1, 3, True, None), tuple(appended[key] for key in ("appends", "bytes", "closed", "epoch")))
        closed = json.loads(self.run_it("close", "j", "--json"))
        self.assertEqual((appended["next_offset"], True), (closed["next_offset"], closed["closed"]))
        for name in ("read", "tail"):
            [line] = self.run_it(name, "j", "--json").splitlines()
            found = json.loads(line)
            self.assertEqual((b"abc", True), (b64decode(found["data_base64"]), found["closed"]))
            self.assertEqual(appended["next_offset"], found["next_offset"])
        forked = json.loads(self.run_it("fork", "j", "j2", "--offset", "start", "--sub-offset", 2, "--json"))
        self.assertTrue(forked["new"])
        self.assertEqual("ab", self.run_it("read", "j2"))

    def test_json_messages_are_printed_in_each_form(self) -> None:
        self.run_it("create", "m", '[1, {"a":\n 2}]', "--content-type", "application/json")
        self.run_it("append", "m", '"three"')
        self.run_it("close", "m")
        for name in ("read", "tail"):
            self.assertEqual('1\n{"a":  2}\n"three"\n', self.run_it(name, "m"))
            lines = self.run_it(name, "m", "--output", "base64").splitlines()
            self.assertEqual([b"1", b'{"a":\n 2}', b'"three"'], [b64decode(line) for line in lines])
            text = self.run_it(name, "m", "--output", "raw")
            self.assertEqual([1, {"a": 2}, "three"], json.loads(text))
        self.assertIn("no JSON messages", self.fails("read", self.text_stream(), "--output", "json-lines"))

    def text_stream(self) -> str:
        self.run_it("create", "text", "x", "--content-type", "text/plain")
        return "text"

    def test_bytes_are_read_as_they_were_appended(self) -> None:
        data = os.urandom(3_000_000)
        (self.folder / "data").write_bytes(data)
        self.run_it("create", "bytes")
        self.assertTrue(self.run_it("append", "bytes", "--file", "data").startswith("3 appends"))
        self.run_it("append", "bytes", "-f", "-", stdin=b"\x00end")
        for options in ((), ("--output", "raw")):
            ended = run_command("read", "bytes", *options, url=self.url)
            self.assertEqual((0, data + b"\x00end"), (ended.returncode, ended.stdout))
        lines = self.run_it("read", "bytes", "--output", "base64").splitlines()
        self.assertEqual(data + b"\x00end", b"".join(b64decode(line) for line in lines))

    def test_lines_are_appended_one_by_one(self) -> None:
        self.run_it("create", "lines", "--content-type", "text/plain")
        self.assertTrue(self.run_it("append", "lines", "--lines", stdin=b"a\n\nb\r\nc").startswith("4 appends"))
        self.assertEqual("a\n\nb\r\nc", run_command("read", "lines", url=self.url).stdout.decode())
        self.run_it("create", "json", "--content-type", "application/json")
        done = self.run_it("append", "json", "--json-lines", "--batch", 2, stdin=b'1\n\n[2, 3]\n"\\ud800"')
        self.assertTrue(done.startswith("2 appends"), done)
        self.assertEqual('1\n[2, 3]\n"\\ud800"\n', self.run_it("read", "json"))

    def test_a_line_that_is_not_one_json_value_is_named(self) -> None:
        self.run_it("create", "bad", "--content-type", "application/json")
        for line in (b"1,2", b"1] [2", b"{", b"nope", b"\xff"):
            message = self.fails("append", "bad", "--json-lines", stdin=b"0\n" + line)
            self.assertIn("Line 2 of The standard input is not JSON", message)
        self.assertEqual("0\n" * 5, self.run_it("read", "bad"))

    def test_a_tail_prints_what_is_appended_at_once(self) -> None:
        self.run_it("create", "live", "a\n", "--content-type", "text/plain")
        for live, kind in (("--sse", "tails"), ("--long-poll", "polls")):
            self.wait_for_readers(kind, 0)
            tail = self.start("tail", "live", live, "--from", "now")
            assert tail.stdout is not None
            writer = self.start("append", "live", "--lines", stdin=subprocess.PIPE)
            assert writer.stdin is not None
            # From now: nothing that was there before.
            self.wait_for_readers(kind, 1)
            writer.stdin.write(b"hello\n")
            writer.stdin.flush()
            self.assertEqual(b"hello\n", tail.stdout.readline())
            tail.send_signal(signal.SIGINT)
            self.assertEqual((b"", b""), tail.communicate(timeout=20))
            self.assertEqual(130, tail.returncode)
            writer.communicate(timeout=20)
            self.assertEqual(0, writer.returncode)

    def wait_for_readers(self, kind: str, count: int) -> None:
        """
        Wait until the server has so many live readers.

        :param kind: ``tails`` for those of events, ``polls`` for long-polls that wait.
        """
        line = f"\ndurable_streams_live_{kind} {count}.0\n".encode()
        deadline = time.monotonic() + PATIENCE
        while line not in shared_daemon().request("GET", "/metrics")[2]:
            self.assertLess(time.monotonic(), deadline, f"not {count} {kind}")
            time.sleep(0.02)

    def test_an_output_that_nobody_reads_is_no_error(self) -> None:
        self.run_it("create", "long", "--content-type", "application/json")
        self.run_it("append", "long", "-f", "-", stdin=json.dumps(["x" * 100] * 20_000).encode())
        for arguments in (("read", "long"), ("tail", "long"), ("tail", "long", "--sse")):
            process = self.start(*arguments)
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            self.assertEqual(0, process.wait(20), arguments)
            assert process.stderr is not None
            self.assertEqual(b"", process.stderr.read())

    def test_a_tail_ends_when_nobody_reads_it_even_if_nothing_is_appended(self) -> None:
        self.run_it("create", "silent", '["x"]', "--content-type", "application/json")
        tail = self.start("tail", "silent")
        assert tail.stdout is not None
        tail.stdout.readline()
        tail.stdout.close()
        self.assertEqual(0, tail.wait(20))

    def test_a_server_on_a_unix_socket_is_reached(self) -> None:
        # The path of a socket is at most 107 bytes long. The server is killed, and leaves the socket and its lock.
        folder = tempfile.TemporaryDirectory(prefix="ds-")
        self.addCleanup(folder.cleanup)
        path = f"{folder.name}/sock"
        command = [*COMMAND, "serve", f"--listen=unix:{path}"]
        server = subprocess.Popen(
            command, env=environment(), cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        deadline = time.monotonic() + 20
        while not os.path.exists(path) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.url = f"unix:{path}"
        self.run_it("create", "it", "x", "--content-type", "text/plain")
        self.assertEqual("x", self.run_it("read", "it"))


class FailureTests(CommandTestCase):
    def test_wrong_command_lines_end_with_status_2(self) -> None:
        for arguments, text in (
            (("append", "x", "--lines", "--json-lines"), "--lines and --json-lines"),
            (("append", "x", "--batch", 2), "--batch needs --json-lines"),
            (("append", "x", "--epoch", 2), "--epoch needs --producer-id"),
            (("append", "x", "--state", "f"), "--state needs --producer-id"),
            (("append", "x", "--producer-id", "me", "--state", "f", "--epoch", 1), "--epoch and --state"),
            (("append", "x", "--producer-id", ""), "must not be empty"),
            (("create", "x", "--ttl", 1, "--expires-at", "2030-01-01T00:00:00Z"), "--ttl and --expires-at"),
            (("create", "x", "--ttl", -1), "--ttl"),
            (("fork", "x", "y", "--sub-offset", 1), "--sub-offset needs --offset"),
            (("read", "ftp://host/x"), "is not a URL such as"),
            (("read", "http://me:secret@host/x"), "Use a token"),
            (("read", "x", "--output", "xml"), "--output"),
        ):
            result = command(*arguments, url=self.url)
            self.assertEqual((2, ""), (result.exit_code, result.stdout), arguments)
            self.assertIn(text, result.stderr)
            self.assertNotIn("secret", result.stderr)
        other = ("fork", "x", "http://elsewhere.invalid/v1/stream/y")
        self.assertIn("on the same server", self.fails(*other, status=2))
        self.assertIn("An offset is", self.fails("read", "x", "--from", "", status=2))

    def test_a_name_without_a_server_is_explained(self) -> None:
        message = self.fails("read", "x", status=2, url="")
        self.assertIn("x is the name of a stream. Give the URL of its server by --url or DS_URL", message)
        self.assertIn("Write http://localhost:4437", self.fails("read", "x", status=2, url="localhost:4437"))

    def test_a_token_is_not_sent_to_another_server_than_its_own(self) -> None:
        message = self.fails("read", "http://127.0.0.1:1/v1/stream/x", "--token", "secret", status=2)
        self.assertIn("which the token is for", message)
        self.assertNotIn("secret", message)

    def test_servers_that_cannot_be_reached_are_named(self) -> None:
        port = free_port()
        self.assertIn(f"127.0.0.1:{port}: connection refused", self.fails("read", "x", url=f"http://127.0.0.1:{port}"))
        self.assertIn("Cannot find the host", self.fails("head", "x", url="http://nowhere.invalid"))
        self.assertIn("Cannot connect", self.fails("head", "x", url="unix:/nowhere.sock"))

    def test_the_servers_sentence_and_code_are_printed(self) -> None:
        self.run_it("create", "s", "x", "--content-type", "text/plain")
        for arguments, text in (
            (("read", "none"), "There is no stream at"),
            (
                ("append", "none", "x", "--content-type", "text/plain"),
                "There is no stream none. Create it first. (404 NOT_FOUND)",
            ),
            (("read", "s", "--from", "what"), "(400 INVALID_OFFSET)"),
            (("create", "s", "--content-type", "text/html"), "(409 ALREADY_EXISTS)"),
            (("append", "s", "x", "--content-type", "text/html"), "(409 CONTENT_TYPE_MISMATCH)"),
            (("append", "s", ""), "There is nothing to append"),
            (("append", "s", "-f", "nowhere"), "Cannot read nowhere: No such file"),
            (("append", "s", "--json-lines"), "--json-lines needs a JSON stream; this one is text/plain"),
        ):
            self.assertIn(text, self.fails(*arguments))

    def test_a_full_output_is_an_error(self) -> None:
        self.run_it("create", "full", "x", "--content-type", "text/plain")
        with open("/dev/full", "wb") as full:
            ended = subprocess.run(
                [*COMMAND, "read", "full"],
                env=environment(url=self.url),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        self.assertEqual(
            (1, b"Error: Cannot write the output: No space left on device.\n"), (ended.returncode, ended.stderr)
        )


class ProducerTests(CommandTestCase):
    def test_the_same_command_with_the_same_epoch_stores_its_input_once(self) -> None:
        self.run_it("create", "once", "--content-type", "text/plain")
        arguments = ("append", "once", "--lines", "--producer-id", "job", "--epoch", 1, "--json")
        first = json.loads(self.run_it(*arguments, stdin=b"a\nb\n"))
        self.assertEqual((2, 0, 1), (first["appends"], first["duplicates"], first["epoch"]))
        again = json.loads(self.run_it(*arguments, stdin=b"a\nb\nc\n"))
        self.assertEqual((3, 2), (again["appends"], again["duplicates"]))
        self.assertIn(
            "2 of them stored by an earlier run",
            self.run_it(*arguments[:-1], stdin=b"a\nb\n").replace("2 appends, ", ""),
        )
        self.assertEqual("a\nb\nc\n", self.run_it("read", "once"))
        self.assertIn("--epoch 2 or higher", self.fails(*arguments[:-3], "--epoch", 0, stdin=b"x\n"))

    def test_runs_without_an_epoch_are_sessions_of_their_own(self) -> None:
        self.run_it("create", "sessions", "--content-type", "text/plain")
        for text in ("x", "x"):
            self.run_it("append", "sessions", text, "--producer-id", "me")
        self.assertEqual("xx", self.run_it("read", "sessions"))

    def test_a_state_file_continues_an_unfinished_run_and_begins_a_new_one_after_it(self) -> None:
        self.run_it("create", "state", "--content-type", "application/json")
        arguments = ("append", "state", "--json-lines", "--producer-id", "job", "--state", "run")
        self.fails(*arguments, stdin=b"1\n2\nnot JSON\n")
        saved = json.loads((self.folder / "run").read_text())
        self.assertEqual((2, False), (saved["appends"], saved["finished"]))
        message = self.fails(*arguments, stdin=b"1\n9\n3\n")
        self.assertIn("an unfinished run with other input; 2 appends of it are stored", message)
        self.assertIn("an unfinished run with other input", self.fails(*arguments, stdin=b"1\n"))
        done = json.loads(self.run_it(*arguments, "--json", stdin=b"1\n2\n3\n"))
        self.assertEqual((3, 2, saved["epoch"]), (done["appends"], done["duplicates"], done["epoch"]))
        later = json.loads(self.run_it(*arguments, "--json", stdin=b"1\n"))
        self.assertGreater(later["epoch"], saved["epoch"])
        self.assertEqual("1\n2\n3\n1\n", self.run_it("read", "state"))

    def test_a_state_file_that_cannot_be_used_is_named(self) -> None:
        self.run_it("create", "other", "--content-type", "text/plain")
        arguments = ("append", "other", "x", "--producer-id", "job", "--state")
        (self.folder / "bad").write_text("{}")
        self.assertIn("bad (--state) has no saved run", self.fails(*arguments, "bad"))
        self.run_it(*arguments, "good")
        self.assertIn(
            "good (--state) is of the producer job of",
            self.fails(*arguments[:3], "--producer-id", "other", "--state", "good"),
        )
        self.assertIn("Cannot write", self.fails(*arguments, "no/where"))


class SavedOffsetTests(CommandTestCase):
    def test_a_tail_goes_on_after_what_an_earlier_one_has_printed(self) -> None:
        self.run_it("create", "saved", "a\n", "--content-type", "text/plain")
        printed = b""
        for number in range(4):
            tail = self.start("tail", "saved", "--save-offset", "place", ("--sse", "--long-poll")[number % 2])
            assert tail.stdout is not None
            printed += tail.stdout.readline()
            tail.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            rest, errors = tail.communicate(timeout=20)
            printed += rest
            self.assertEqual((b"", (143, 130)[number % 2]), (errors, tail.returncode))
            self.run_it("append", "saved", f"{number}\n")
        self.run_it("close", "saved")
        printed += self.run_it("tail", "saved", "--save-offset", "place").encode()
        self.assertEqual(b"a\n0\n1\n2\n3\n", printed)
        self.assertEqual("", self.run_it("tail", "saved", "--save-offset", "place"))
        self.assertEqual(["place"], sorted(path.name for path in self.folder.iterdir()))

    def test_a_file_of_another_stream_and_a_damaged_one_are_refused(self) -> None:
        for name in ("s1", "s2"):
            self.run_it("create", name, "x", "--content-type", "text/plain", "--closed")
        self.run_it("tail", "s1", "--save-offset", "place")
        self.assertIn("is of the stream", self.fails("tail", "s2", "--save-offset", "place"))
        (self.folder / "place").write_text("")
        self.assertIn("has no saved offset", self.fails("tail", "s1", "--save-offset", "place"))
        message = run_command("tail", "s1", "--save-offset", "no/where", folder=self.folder, url=self.url)
        self.assertEqual((1, b"x"), (message.returncode, message.stdout))
        self.assertIn(b"Cannot write", message.stderr)


class TlsTests(SynchronousTestCase):
    def test_certificates_of_both_sides_are_given_by_options(self) -> None:
        certificates = Certificates()
        self.addCleanup(certificates.clean_up)
        with TLSDaemon(certificates, "mtls") as daemon:
            options = ("--ca", certificates.ca, "--cert", certificates.client, "--key", certificates.client_key)
            made = run_command("create", "it", "x", "--content-type", "text/plain", *options, url=daemon.url)
            self.assertEqual((0, b""), (made.returncode, made.stderr))
            self.assertEqual(b"x", run_command("read", "it", *options, url=daemon.url).stdout)
            untrusted = run_command("read", "it", url=daemon.url)
            self.assertEqual(1, untrusted.returncode)
            self.assertIn(b"is not trusted (certificate verify failed)", untrusted.stderr)
            unknown = run_command("read", "it", "--ca", certificates.ca, url=daemon.url)
            self.assertEqual((1, b""), (unknown.returncode, unknown.stdout))
            self.assertNotIn(b"Traceback", unknown.stderr)
