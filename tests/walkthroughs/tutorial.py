"""``docs/tutorial.rst``, followed to the letter: its commands, and its page in a real Chromium."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.conformance.fronts import CHECKOUT, free_port
from tests.conformance.processes import ProgramFailure
from tests.conformance.report import SuiteResult
from tests.support.pages import block_after
from tests.walkthroughs.chromium import Browser, Page
from tests.walkthroughs.scenarios import SECONDS, Wrong, eventually, play

PAGE = CHECKOUT / "docs" / "tutorial.rst"
EXAMPLE = Path("docs", "examples", "tutorial")
HTTP_PAGE = CHECKOUT / "docs" / "http.rst"
RECONNECT_SECONDS = 2
INSTALL_SECONDS = 300.0
#: How many states of the growing text must be seen before the first reload.
GROWTHS = 5


def commands() -> list[str]:
    """Return the blocks of commands: server, page, producer, deletion."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    found = [textwrap.dedent(block).strip() for block in blocks]
    return [block for block in found if re.match(r"(DS_|cd |python3 |curl )", block)]


class Tutorial:
    """
    The files of the tutorial in a folder of their own, with free ports instead of the page's.

    :param place: an empty folder.
    """

    def __init__(self, place: Path) -> None:
        self._place = place
        self._ports = {"4437": str(free_port()), "8000": str(free_port())}
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
        self._environment["PYTHONPATH"] = str(CHECKOUT)
        # So that connections end, and clients reconnect, within a scenario.
        self._environment["DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS"] = str(RECONNECT_SECONDS)
        shutil.copytree(CHECKOUT / EXAMPLE, place / EXAMPLE, ignore=shutil.ignore_patterns("node_modules", "page.js"))
        for name in ("page.ts", "produce.py"):
            path = place / EXAMPLE / name
            path.write_text(self._here(path.read_text()))
        scripts = place / ".venv" / "bin"
        scripts.mkdir(parents=True)
        twistd = scripts / "twistd"
        twistd.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c 'from twisted.scripts.twistd import run; run()' --pidfile= \"$@\"\n"
        )
        twistd.chmod(0o755)
        server, page, self._producing, self._deleting = map(self._here, commands())
        self._serving = server
        *self._installing, self._pages = page.splitlines()
        self.text = self._answer()

    def _here(self, text: str) -> str:
        """Replace the ports of the page."""
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text

    def _answer(self) -> str:
        """Return the text that the producer writes."""
        code = f"import sys; sys.path.append({str(EXAMPLE)!r}); import produce; print(produce.ANSWER, end='')"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=self._place, capture_output=True, text=True, check=True
        ).stdout

    def url(self, host: str = "localhost") -> str:
        """Return where the page is."""
        return f"http://{host}:{self._ports['8000']}/"

    def stream(self, name: str) -> str:
        """Return the URL of a stream."""
        return f"http://localhost:{self._ports['4437']}/v1/stream/{name}"

    def install(self) -> None:
        """Build the page."""
        self.run("\n".join(self._installing), INSTALL_SECONDS)

    def delete(self) -> None:
        """Delete the stream."""
        self.run(self._deleting.replace("curl ", "curl -sS --fail "))

    def run(self, command: str, seconds: float = SECONDS) -> None:
        """Run a command to its end, which must be a success."""
        ended = subprocess.run(
            ["bash", "-euc", command],
            cwd=self._place,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if ended.returncode != 0:
            raise ProgramFailure(f"{command}\n{ended.stdout}{ended.stderr}")

    @contextmanager
    def _running(self, command: str, url: str | None) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command until the context is left; wait until a URL answers."""
        process = subprocess.Popen(
            ["bash", "-euc", command],
            cwd=self._place,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=(self._place / "output").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if url is not None:
                eventually(lambda: answers(url), lambda: f"{command}: no answer at {url}")
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(SECONDS)

    @contextmanager
    def served(self) -> Iterator[None]:
        """Run the server and the page."""
        with ExitStack() as stack:
            stack.enter_context(self._running(self._serving, f"http://127.0.0.1:{self._ports['4437']}/readyz"))
            pages = f"cd {EXAMPLE}\n{self._pages}"
            stack.enter_context(self._running(pages, self.url("127.0.0.1")))
            yield

    @contextmanager
    def written(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the producer; it is interrupted when the context is left."""
        with self._running(self._producing, None) as process:
            yield process


def answers(url: str) -> bool:
    """Tell whether a URL answers."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False


def shown(page: Page, part: str = "answer") -> str:
    """Return the text of the answer, or of the state, empty while the page is loaded."""
    return str(page.evaluate(f"document.querySelector('#{part}')?.textContent ?? ''"))


def wait_for_state(page: Page, state: str) -> None:
    """Wait until the page says something."""
    eventually(
        lambda: shown(page, "state") == state, lambda: f"the page never said {state!r} but {shown(page, 'state')!r}"
    )


def wait_for_value(page: Page, expression: str) -> None:
    """Wait until an expression in the page is true."""
    eventually(lambda: page.evaluate(expression) is True, lambda: f"{expression} did not become true")


def watch_growth(page: Page, text: str, growths: int) -> None:
    """Wait until the text has grown some times; each state must be a beginning of the whole."""
    seen = {shown(page)}

    def grown() -> bool:
        seen.add(shown(page))
        return len(seen) > growths

    eventually(grown, lambda: f"the text has not grown {growths} times")
    for state in seen:
        if not text.startswith(state):
            raise Wrong(f"the page showed {state!r}, which is not a beginning of the answer")
    if text in seen:
        raise Wrong("the answer was complete before the page was reloaded")


def expect_answer(page: Page, text: str) -> None:
    """Wait for the end, and compare the text."""
    wait_for_state(page, "complete")
    if shown(page) != text:
        raise Wrong(f"the page shows {shown(page)!r}")


def offsets_asked(page: Page) -> list[str]:
    """Return the offsets of the page's requests since it was loaded."""
    urls = page.evaluate("performance.getEntriesByType('resource').map(entry => entry.name)")
    return [match[1] for url in urls if (match := re.search(r"[?&]offset=([^&]*)", url))]


def appears_while_written_and_survives_reloads(tutorial: Tutorial, browser: Browser) -> None:
    page = browser.open(tutorial.url())
    wait_for_state(page, "waiting for the answer")
    with tutorial.written() as producer:
        for _ in range(3):
            watch_growth(page, tutorial.text, GROWTHS)
            if producer.poll() is not None:
                raise Wrong("the producer was done before the page was reloaded")
            page.reload()
            wait_for_state(page, "writing")
            if "-1" in offsets_asked(page) or not offsets_asked(page):
                raise Wrong(f"after a reload the page asked for {offsets_asked(page)}")
        expect_answer(page, tutorial.text)
    page.reload()
    expect_answer(page, tutorial.text)
    second = browser.open(tutorial.url() + "?another-page")
    expect_answer(second, tutorial.text)


def survives_an_interrupted_producer(tutorial: Tutorial, browser: Browser) -> None:
    tutorial.delete()
    # The profile has the offset of the deleted stream.
    page = browser.open(tutorial.url())
    wait_for_state(page, "waiting for the answer")
    with tutorial.written():
        eventually(lambda: 0 < len(shown(page)) < len(tutorial.text), lambda: "the second answer never began")
    interrupted = shown(page)
    with tutorial.written():
        expect_answer(page, tutorial.text)
    if interrupted == tutorial.text:
        raise Wrong("the producer was not interrupted")


def is_refused_to_pages_of_other_origins(tutorial: Tutorial, browser: Browser) -> None:
    page = browser.open(tutorial.url("127.0.0.1"))
    wait_for_state(page, "connecting")
    # The client repeats what looks like a failure of the network.
    time.sleep(1)
    if (shown(page), shown(page, "state")) != ("", "connecting"):
        raise Wrong(f"a page of another origin shows {shown(page)!r}, {shown(page, 'state')!r}")


def event_source_goes_on_after_each_reconnection(tutorial: Tutorial, browser: Browser) -> None:
    """The block of docs/http.rst, in the tutorial's page: its origin is allowed."""
    stream = tutorial.stream("events")
    page = browser.open(tutorial.url() + "?event-source")
    wait_for_state(page, "complete")
    post(stream, 0, create=True)
    script = block_after(HTTP_PAGE, "needs no library").replace("http://localhost:4437/v1/stream/demo/chat", stream)
    page.evaluate(
        "window.seen = []; window.openings = 0; (show => {"
        f"{script}; window.events = events; events.onopen = () => window.openings++"
        "})(messages => window.seen.push(...messages)); null"
    )
    for number in range(1, 4):
        wait_for_value(page, f"window.openings >= {number}")
        post(stream, number)
        wait_for_value(page, f"window.seen.includes({number})")
    post(stream, None)
    wait_for_value(page, "window.events.readyState === EventSource.CLOSED")
    if page.evaluate("window.seen") != [0, 1, 2, 3]:
        raise Wrong(f"EventSource showed {page.evaluate('window.seen')}")


def post(stream: str, number: int | None, create: bool = False) -> None:
    """Append a number to a stream, or close it."""
    request = urllib.request.Request(
        stream,
        method="PUT" if create else "POST",
        data=b"" if number is None else b"[%d]" % number,
        headers={"Content-Type": "application/json"} | ({"Stream-Closed": "true"} if number is None else {}),
    )
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass


SCENARIOS = (
    appears_while_written_and_survives_reloads,
    survives_an_interrupted_producer,
    event_source_goes_on_after_each_reconnection,
    is_refused_to_pages_of_other_origins,
)


def run_tutorial(place: Path) -> SuiteResult:
    """Follow the tutorial in an empty folder."""
    tutorial = Tutorial(place)
    tutorial.install()
    with tutorial.served():
        return play(SCENARIOS, tutorial, lambda: (place / "output").read_text(errors="replace"))
