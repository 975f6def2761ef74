"""Commands with tokens: what they print when a server refuses them, and tokens that are replaced while they run."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.refusals import advice_about
from durable_streams.server.client import Refusal
from tests.support.commands import run_command


class AdviceTests(SynchronousTestCase):
    def test_a_missing_token_is_asked_for(self) -> None:
        for status, code in ((401, "UNAUTHORIZED"), (403, "FORBIDDEN"), (403, "")):
            self.assertIn("--token-file FILE or DS_TOKEN", advice_about(Refusal("No.", status, code), False))

    def test_a_token_that_is_not_accepted_is_named_by_its_options(self) -> None:
        self.assertIn("--token-file, --token or DS_TOKEN", advice_about(Refusal("No.", 401), True))
        self.assertIn("durable-streams-server authorize", advice_about(Refusal("No.", 403, "FORBIDDEN"), True))

    def test_a_certificate_that_may_not_do_it_needs_a_rule_and_no_token(self) -> None:
        for code in ("FORBIDDEN", ""):
            advice = advice_about(Refusal("No.", 403, code), False, has_certificate=True)
            self.assertIn("durable-streams-server authorize", advice)
            self.assertNotIn("token", advice)
        self.assertIn("--cert", advice_about(Refusal("No.", 401), False, has_certificate=True))

    def test_other_refusals_need_no_token(self) -> None:
        for status, code in (
            (403, "PRODUCER_EPOCH_FENCED"),
            (403, "ORIGIN_NOT_ALLOWED"),
            (404, ""),
            (429, ""),
            (503, ""),
        ):
            self.assertEqual("", advice_about(Refusal("No.", status, code), True))


class Server:
    """Answers each request as a table says, and records the tokens that were sent."""

    def __init__(self, answers: dict[str, tuple[int, dict[str, str], bytes]]) -> None:
        tokens = self.tokens = list[str | None]()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                token = self.headers.get("Authorization", "").removeprefix("Bearer ")
                tokens.append(token)
                status, headers, body = answers.get(token, answers[""])
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def problem(status: int, code: str, detail: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return an answer with a problem document."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"code": code, "title": code, "detail": detail}).encode()
    return status, {"Content-Type": "application/problem+json"} | named, body


FOUND = (
    200,
    {
        "Content-Type": "text/plain",
        "Stream-Next-Offset": "0000000000000001_0000000000000011",
        "Stream-Up-To-Date": "true",
        "Stream-Closed": "true",
    },
    b"all is well",
)


class CommandTests(SynchronousTestCase):
    """All commands that talk to a server, against one that refuses them."""

    def serve(self, answers: dict[str, tuple[int, dict[str, str], bytes]]) -> Server:
        server = Server(answers)
        self.addCleanup(server.stop)
        return server

    def commands(self, url: str) -> Iterator[tuple[Any, ...]]:
        stream = f"{url}/v1/stream/x"
        for name in ("create", "read", "tail", "head", "close", "delete"):
            yield name, stream
        yield "append", stream, "data"
        yield "append", stream, "data", "--content-type", "text/plain"
        yield "fork", stream, f"{stream}2"
        yield "bench", "--url", url, "--seconds", "0.1"
        for name in ("list", "export", "backup", "rotate-signing-key"):
            yield name, "--url", url

    def test_each_command_sends_the_token_of_the_file_and_of_the_variable(self) -> None:
        server = self.serve({"": problem(401, "UNAUTHORIZED", "The token is not known.")})
        file = Path(self.mktemp()).absolute()
        file.write_text("# for x\nsecret-of-file\n")
        for command in self.commands(server.url):
            server.tokens.clear()
            ended = run_command(*command, "--token-file", file)
            self.assertEqual(1, ended.returncode, ended.stderr)
            self.assertEqual({"secret-of-file"}, set(server.tokens), command)
            said = ended.stderr.decode()
            self.assertIn("401", said, command)
            self.assertIn("The token is that of --token-file, --token or DS_TOKEN: replace it.", said, command)
            self.assertNotIn("secret-of-file", said, command)
        server.tokens.clear()
        run_command("head", f"{server.url}/v1/stream/x", token="secret-of-variable")
        self.assertEqual({"secret-of-variable"}, set(server.tokens))

    def test_each_command_asks_for_a_token_if_the_server_does(self) -> None:
        server = self.serve({"": problem(401, "UNAUTHORIZED", "The request has no credentials.")})
        for command in self.commands(server.url):
            ended = run_command(*command)
            self.assertEqual(1, ended.returncode, ended.stderr)
            self.assertIn("Give a token with --token-file FILE or DS_TOKEN.", ended.stderr.decode(), command)

    def test_a_forbidden_request_names_the_command_that_explains_it(self) -> None:
        server = self.serve({"": problem(403, "FORBIDDEN", "No rule allows this.")})
        ended = run_command("close", f"{server.url}/v1/stream/x", token="secret")
        self.assertEqual(
            "Error: No rule allows this. (403 FORBIDDEN) On the server's machine, durable-streams-server authorize "
            "explains which rule decides.\n",
            ended.stderr.decode(),
        )

    def test_too_many_requests_are_told_with_the_time_of_the_next(self) -> None:
        server = self.serve(
            {"": problem(429, "RATE_LIMITED", "Too many requests. Retry in 7 seconds.", retry_after="7")}
        )
        for name, text in (("delete", "Retry in 7 seconds."), ("head", "too many requests")):
            ended = run_command(name, f"{server.url}/v1/stream/x")
            self.assertEqual(1, ended.returncode)
            self.assertIn(text, ended.stderr.decode())
            self.assertIn("(429", ended.stderr.decode())

    def test_the_reason_of_an_answer_without_a_body_is_that_of_its_challenge(self) -> None:
        challenge = 'Bearer realm="x", error="invalid_token", error_description="The token has expired."'
        server = self.serve({"": (401, {"WWW-Authenticate": challenge}, b"")})
        ended = run_command("read", f"{server.url}/v1/stream/x", token="secret")
        self.assertIn("Error: The token has expired. (401) The token is that of", ended.stderr.decode())

    def test_a_token_that_was_replaced_in_its_file_is_used(self) -> None:
        file = Path(self.mktemp()).absolute()
        file.write_text("old")
        refusal = problem(401, "UNAUTHORIZED", "The token is not known.")

        class Replacing(dict[str, Any]):
            """Replaces the token in the file when the old one is looked up."""

            def get(self, token: str, default: Any = None) -> Any:
                if token == "old":
                    file.write_text("new")
                return super().get(token, default)

        server = self.serve(Replacing({"": refusal, "new": FOUND}))
        ended = run_command("read", f"{server.url}/v1/stream/x", "--token-file", file)
        self.assertEqual((0, b"all is well"), (ended.returncode, ended.stdout), ended.stderr)
        self.assertEqual(["old", "new"], server.tokens[:2])
        self.assertNotIn("old", server.tokens[1:])

    def test_a_file_that_is_gone_when_it_is_read_again_is_an_error(self) -> None:
        file = Path(self.mktemp()).absolute()
        file.write_text("old")

        class Removing(dict[str, Any]):
            """Removes the file when the old token is looked up."""

            def get(self, token: str, default: Any = None) -> Any:
                file.unlink(missing_ok=True)
                return super().get(token, default)

        server = self.serve(Removing({"": problem(401, "UNAUTHORIZED", "The token is not known.")}))
        ended = run_command("read", f"{server.url}/v1/stream/x", "--token-file", file)
        self.assertEqual(1, ended.returncode)
        self.assertIn("Cannot read the token file", ended.stderr.decode())
        self.assertNotIn("Traceback", ended.stderr.decode())
