"""A headless Chromium, driven by the DevTools protocol over a pipe: messages are JSON, each ended by a zero byte."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ANSWER_SECONDS = 30.0
PAUSE_SECONDS = 0.02

# As root, which a container's user often is, Chromium does not start with its sandbox.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-pipe",
)


class BrowserError(Exception):
    """The browser has ended, does not answer, or a script in a page failed."""


class Browser:
    """
    A browser with a profile of its own.

    :param program: the path of Chromium.
    """

    def __init__(self, program: str) -> None:
        # With its temporary files, which remain when it is killed.
        self._place = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        self._log = Path(self._place.name) / "chromium.log"
        # Chromium reads commands from descriptor 3 and writes answers to descriptor 4.
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("bash", "-c", f'exec "$@" 3<&{commands} 4>&{answers}', "bash", program),
                    *(*_OPTIONS, f"--user-data-dir={self._place.name}/profile", "about:blank"),
                ],
                env=os.environ | {"TMPDIR": self._place.name},
                pass_fds=(commands, answers),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(commands)
        os.close(answers)
        self._buffer = b""
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._place.cleanup()

    def open(self, url: str) -> Page:
        """Open a page."""
        target = self.ask("Target.createTarget", {"url": url})["targetId"]
        session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        return Page(self, session)

    def ask(self, method: str, parameters: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        """
        Send a command and return its result.

        :raises BrowserError: the command failed, or there is no answer.
        """
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self, deadline: float, method: str) -> dict[str, Any]:
        """Return the next message of the browser, an answer or an event."""
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._answers, 1 << 16) if ready else b""
            if not data:
                log = self._log.read_text(errors="replace")[-2000:]
                raise BrowserError(f"{method}: {'the browser has ended' if ready else 'no answer'}\n{log}")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def evaluate(self, expression: str) -> Any:
        """
        Return the value of an expression in the page, as JSON has it.

        :raises BrowserError: the expression threw an error.
        """
        result = self._browser.ask(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True},
            self._session,
        )
        if "exceptionDetails" in result:
            raise BrowserError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def reload(self) -> None:
        """Load the page again."""
        self._browser.ask("Page.reload", {}, self._session)
