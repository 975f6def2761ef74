"""Runs the workers of the page about subscriptions, and kills them in the middle of their work."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, environment
from tests.support.daemon import CHECKOUT, PATIENCE, Daemon, free_port
from tests.support.skipping import skip_not_installed

EXAMPLES = CHECKOUT / "docs" / "examples" / "subscriptions"

PYTHON = sys.executable

PAGE = CHECKOUT / "docs" / "subscriptions.rst"


def node() -> str:
    """Return the path of Node; skip or fail the test if it is not installed."""
    path = shutil.which("node")
    if path is None:
        skip_not_installed("node", "apt-get install nodejs")
    return path


class Worker:
    """A program of the page that runs."""

    def __init__(self, case: SynchronousTestCase, *command: object, **variables: object) -> None:
        self._folder = tempfile.TemporaryDirectory()
        case.addCleanup(self._folder.cleanup)
        self._output = Path(self._folder.name, "output")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env=environment() | {name: str(value) for name, value in variables.items()},
                cwd=self._folder.name,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        case.addCleanup(self.kill)

    def kill(self) -> None:
        """Kill it with SIGKILL if it runs."""
        self.process.kill()
        self.process.wait()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._output.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it has printed a text."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.01)


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = Daemon(subscriptions__enabled="true", http__allow_insecure_webhooks="true", admin__enabled="true")
        self.addCleanup(self.daemon.close)
        self.daemon.__enter__()
        self.url = f"http://127.0.0.1:{self.daemon.port}/v1/stream"

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        encoded = None if body is None else json.dumps(body).encode()
        status, _, answer = self.daemon.request(
            method, f"/v1/stream/{path}", encoded, **({} if body is None else {"content_type": "application/json"})
        )
        return status, json.loads(answer) if answer else None

    def until(self, condition: Callable[[], Any], *workers: Worker) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, "\n".join(worker.output for worker in workers))
            time.sleep(0.02)


class QueueTests(PageTests):
    """The queue of jobs, whose workers are killed."""

    def worker(self, name: str) -> Worker:
        return Worker(self, PYTHON, EXAMPLES / "worker.py", name, DS_URL=self.url)

    def results(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.send("GET", "results?offset=-1")[1]
        return found

    def acknowledged(self) -> str:
        offset: str = self.send("GET", "__ds/subscriptions/jobs")[1]["streams"][0]["acked_offset"]
        return offset

    def test_no_job_is_lost_when_workers_are_killed_twice_in_the_middle_of_a_job(self) -> None:
        first = self.worker("first")
        self.until(lambda: self.send("GET", "__ds/subscriptions/jobs")[0] == 200, first)
        jobs = [{"id": number, "seconds": 0.1} for number in range(1, 11)]
        self.assertEqual(self.send("POST", "jobs", jobs[:7])[0], 204)
        first.wait_for("first begins 3\n")
        first.kill()
        second = self.worker("second")
        second.wait_for("second begins 6\n")
        second.kill()
        self.assertEqual(self.send("POST", "jobs", jobs[7:])[0], 204)
        third = self.worker("third")
        tail = self.daemon.request("HEAD", "/v1/stream/jobs")[1]["stream-next-offset"]
        self.until(lambda: self.acknowledged() == tail, first, second, third)

        results = Counter(result["id"] for result in self.results())
        self.assertEqual(set(results), {job["id"] for job in jobs})
        begun = Counter(
            int(number) for worker in (first, second, third) for number in re.findall(r"begins (\d+)\n", worker.output)
        )
        # Only the jobs that were in progress at a kill are begun twice, and those that were stored are not.
        self.assertEqual({number for number, count in begun.items() if count > 1}, {3, 6})
        self.assertEqual(max(begun.values()), 2)
        self.assertEqual(max(results.values()), 1)

    def test_two_workers_share_the_queue_and_do_each_job_once(self) -> None:
        workers = [self.worker("first"), self.worker("second")]
        self.until(lambda: self.send("GET", "__ds/subscriptions/jobs")[0] == 200, *workers)
        for number in range(1, 9):
            self.assertEqual(self.send("POST", "jobs", {"id": number, "seconds": 0.02})[0], 204)
        self.until(lambda: len(self.results()) == 8, *workers)
        self.assertEqual([result["id"] for result in self.results()], list(range(1, 9)))
        self.assertEqual(sum(worker.output.count("begins") for worker in workers), 8)

    def test_a_worker_keeps_its_lease_during_a_long_job(self) -> None:
        first = self.worker("first")
        self.until(lambda: self.send("GET", "__ds/subscriptions/jobs")[0] == 200, first)
        self.assertEqual(self.send("POST", "jobs", {"id": 1, "seconds": 5})[0], 204)
        first.wait_for("first begins 1\n")
        second = self.worker("second")
        tail = self.daemon.request("HEAD", "/v1/stream/jobs")[1]["stream-next-offset"]
        self.until(lambda: self.acknowledged() == tail, first, second)
        self.assertEqual(["first begins 1\n", ""], [first.output, second.output])
        self.assertEqual([1], [result["id"] for result in self.results()])


class ReceiverTests(PageTests):
    """The receivers of webhooks."""

    def works(self, *command: object) -> None:
        port = free_port()
        receiver = Worker(self, *command, DS_URL=self.url, PORT=port)
        receiver.wait_for("listening on ")
        hook = {"type": "webhook", "pattern": "chat/*", "webhook": {"url": f"http://127.0.0.1:{port}/"}}
        self.assertEqual(self.send("PUT", "__ds/subscriptions/chat", hook)[0], 201)
        self.assertEqual(self.send("PUT", "chat/1", [{"say": "hello"}])[0], 201)
        receiver.wait_for("chat/1 ")
        self.assertEqual(self.send("POST", "chat/1", [{"say": "again"}])[0], 204)
        tail = self.daemon.request("HEAD", "/v1/stream/chat/1")[1]["stream-next-offset"]

        def acknowledged() -> bool:
            streams = self.send("GET", "__ds/subscriptions/chat")[1]["streams"]
            return [(stream["path"], stream["acked_offset"]) for stream in streams] == [("chat/1", tail)]

        self.until(acknowledged, receiver)
        # The receiver looks for the new key, at most every 10 seconds; until then the server repeats the webhook.
        self.assertEqual(self.daemon.request("POST", "/admin/rotate-signing-key")[0], 200)
        self.assertEqual(self.send("POST", "chat/1", [{"say": "rotated"}])[0], 204)
        tail = self.daemon.request("HEAD", "/v1/stream/chat/1")[1]["stream-next-offset"]
        self.until(acknowledged, receiver)
        messages = [json.loads(line.removeprefix("chat/1 ")) for line in receiver.output.splitlines()[1:]]
        self.assertEqual([message["say"] for message in messages], ["hello", "again", "rotated"])
        self.is_refused(port, receiver)

    def is_refused(self, port: int, receiver: Worker) -> None:
        """Send a request with a signature that is not of the server."""
        before = receiver.output
        body = json.dumps({"streams": [{"path": "chat/1", "acked_offset": "-1", "has_pending": True}]}).encode()
        kid = self.send("GET", "__ds/jwks.json")[1]["keys"][0]["kid"]
        forged = f"t={int(time.time())},kid={kid},ed25519={'A' * 86}"
        for headers in ({}, {"Webhook-Signature": forged}):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            self.addCleanup(connection.close)
            connection.request("POST", "/", body, headers)
            self.assertEqual(connection.getresponse().status, 401)
        self.assertEqual(receiver.output, before)

    def test_the_receiver_in_python_checks_signatures_and_acknowledges_by_its_answer(self) -> None:
        self.works(PYTHON, EXAMPLES / "receiver.py")

    def test_the_receiver_in_node_checks_signatures_and_acknowledges_by_a_callback(self) -> None:
        self.works(node(), EXAMPLES / "receiver.mjs")


class CommandTests(PageTests):
    """The commands of the page, in their order."""

    def setUp(self) -> None:
        super().setUp()
        self.receiver_port = free_port()
        self.started: dict[str, Worker] = {}

    def start(self, command: str) -> Worker:
        variables = dict(re.findall(r"([A-Z_]+)=(\S+) ", command))
        words = [word for word in command.removesuffix("&").split() if "=" not in word]
        program = {"python3": PYTHON, "node": node()}[words[0]]
        worker = Worker(self, program, CHECKOUT / words[1], *words[2:], DS_URL=self.url, **variables)
        self.started[words[-1]] = worker
        return worker

    def run_command(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", f'durable-streams-server() {{ {shlex.join(COMMAND)} "$@"; }}; {command}'],
            env=environment(url=self.url),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr), command)
        return done.stdout

    def test_each_command_does_what_the_page_says(self) -> None:
        page = PAGE.read_text().replace("127.0.0.1:4437", f"127.0.0.1:{self.daemon.port}")
        page = page.replace("8080", str(self.receiver_port)).replace('"seconds": 15', '"seconds": 1')
        commands = re.findall(r"(?m)^    \$ (.*)$", page)
        self.assertGreater(len(commands), 10)
        output = ""
        for command in commands:
            if command.startswith("export ") or command.endswith("serve &"):
                continue  # the server of this test, and the address for its commands
            if command.startswith("pkill "):
                self.started["first"].wait_for("first begins 3\n")
                self.started["first"].kill()
            elif command.endswith(" &"):
                worker = self.start(command)
                if "first" in command:
                    self.until(lambda: self.send("GET", "__ds/subscriptions/jobs")[0] == 200, worker)
                if "receiver" in command:
                    worker.wait_for("listening on ")
            else:
                output += self.run_command(command)
        self.assertIn('"acked_offset"', output)
        self.assertIn("Webhooks are signed by ds_", output)
        second = self.started["second"]
        second.wait_for("second begins 4\n")
        self.assertEqual(re.findall(r"begins (\d)", second.output), ["3", "4"])
        self.started["docs/examples/subscriptions/receiver.mjs"].wait_for('chat/1 {"say":"hello"}\n')

    def test_the_page_names_the_programs_and_their_functions(self) -> None:
        page = PAGE.read_text()
        programs = {path.name: path.read_text() for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs")}
        self.assertEqual(set(programs), set(re.findall(r"<examples/subscriptions/([a-z.]+)>", page)))
        for name, function in (("receiver.mjs", "isAuthentic"), ("receiver.py", "is_authentic")):
            self.assertIn(f"{function}(", programs[name])
            self.assertIn(f"``{function}``", page)
