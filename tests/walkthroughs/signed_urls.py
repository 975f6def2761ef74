"""``docs/signed-urls.rst``, followed to the letter: its page, in a Chromium, has another origin than the streams."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path

from tests.conformance.report import SuiteResult
from tests.support.signed_urls_page import SignedUrlsPage
from tests.walkthroughs.chromium import Browser, Page
from tests.walkthroughs.scenarios import SECONDS, Wrong, eventually, play

#: How long the URLs of the application are valid, so that several expire within a scenario.
VALID_SECONDS = 3

#: How many URLs the page must have been given while it reads.
URLS = 4


def shown(page: Page) -> list[str]:
    """Return the messages that the page shows."""
    items: list[str] = page.evaluate("Array.from(document.querySelectorAll('#news li'), (item) => item.textContent)")
    return items


def url_of(followed: SignedUrlsPage) -> str:
    """Return a URL of the application."""
    with urllib.request.urlopen(f"{followed.application}/stream-url", timeout=SECONDS) as answer:
        url: str = json.load(answer)["url"]
        return url


def append(followed: SignedUrlsPage, message: object) -> None:
    """Append a message as the backend does."""
    token = (followed.place / "backend.token").read_text().strip()
    request = urllib.request.Request(
        f"{followed.streams}/news/today",
        json.dumps([message]).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=SECONDS):
        pass


def reads_one_stream(followed: SignedUrlsPage, browser: Browser) -> None:
    page = browser.open(followed.application)
    eventually(lambda: shown(page) == ["first"], lambda: f"the page shows {shown(page)}")
    followed.shell.run(followed.append)
    eventually(lambda: shown(page) == ["first", "second"], lambda: f"the page shows {shown(page)}")
    if page.evaluate("location.origin") == followed.streams.removesuffix("/v1/stream"):
        raise Wrong("the page and the streams have one origin")


def may_neither_write_nor_read_another_stream(followed: SignedUrlsPage, browser: Browser) -> None:
    page = browser.open(followed.application)
    eventually(lambda: len(shown(page)) == 2, lambda: f"the page shows {shown(page)}")
    url = url_of(followed)
    other = url.replace("/news/today?", "/news/tomorrow?")
    for expected, method, target in (
        (200, "GET", f"{url}&offset=-1"),
        (403, "POST", url),
        (403, "PUT", url),
        (403, "DELETE", url),
        (401, "GET", f"{other}&offset=-1"),
        (401, "PUT", other),
        (401, "GET", url.partition("?")[0]),
        (401, "GET", url.replace("ds_op=read", "ds_op=append")),
    ):
        body = ", body: '[\"forged\"]', headers: {'Content-Type': 'application/json'}" if method[0] == "P" else ""
        code = f"fetch({json.dumps(target)}, {{method: '{method}'{body}}}).then((answer) => answer.status)"
        status = page.evaluate(code)
        if status != expected:
            raise Wrong(f"{method} {target} was answered with {status} instead of {expected}")
    if shown(page) != ["first", "second"]:
        raise Wrong(f"the page shows {shown(page)}")


def continues_without_a_gap_when_urls_expire(followed: SignedUrlsPage, browser: Browser) -> None:
    page = browser.open(followed.application)
    given = "performance.getEntriesByType('resource').filter((each) => each.name.endsWith('/stream-url')).length"
    eventually(lambda: len(shown(page)) == 2, lambda: f"the page shows {shown(page)}")
    expected = ["first", "second"]
    deadline = time.monotonic() + SECONDS
    while page.evaluate(given) < URLS:
        if time.monotonic() > deadline:
            raise Wrong(f"the page was given {page.evaluate(given)} URLs")
        expected.append(f"message {len(expected)}")
        append(followed, expected[-1])
        time.sleep(0.1)
    eventually(lambda: len(shown(page)) >= len(expected), lambda: f"the page shows {len(shown(page))} messages")
    if shown(page) != expected:
        raise Wrong(f"the page shows {shown(page)}, and not {expected}")


def stops_at_an_event_source_that_was_refused(followed: SignedUrlsPage, browser: Browser) -> None:
    page = browser.open(followed.application)
    url = f"{url_of(followed)}&offset=now&live=sse"
    page.evaluate(
        f"window.opened = 0; window.source = new EventSource({json.dumps(url)}); "
        "window.source.onopen = () => window.opened++; null"
    )
    eventually(lambda: page.evaluate("window.opened") == 1, lambda: "the EventSource was not opened")
    closed = "window.source.readyState === EventSource.CLOSED"
    eventually(lambda: page.evaluate(closed), lambda: "the EventSource was not closed when its URL had expired")
    if page.evaluate("window.opened") != 1:
        raise Wrong("the EventSource was opened again with an expired URL")


def is_recorded_without_signatures(followed: SignedUrlsPage, browser: Browser) -> None:
    recorded = followed.recorded()
    if recorded.count('"kind":"signed-url"') < URLS or "ds_sig" in recorded:
        raise Wrong("the audit log has not each read, or the server has recorded a signature")


SCENARIOS = (
    reads_one_stream,
    may_neither_write_nor_read_another_stream,
    continues_without_a_gap_when_urls_expire,
    stops_at_an_event_source_that_was_refused,
    is_recorded_without_signatures,
)


def run_signed_urls(place: Path) -> SuiteResult:
    """Follow the page in an empty folder."""
    followed = SignedUrlsPage(place / "page", VALID_SECONDS)
    try:
        followed.set_up()
        followed.shell.start(followed.serve_application)
        return play(SCENARIOS, followed, followed.log)
    finally:
        followed.tear_down()
