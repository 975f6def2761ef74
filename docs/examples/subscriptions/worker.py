"""Work off a queue of jobs, as one of any number of workers: ``python3 worker.py NAME``.

The queue is the stream ``jobs``; whoever has a job appends it. The subscription ``jobs`` has the place up to which jobs
are done. It gives its lease to one worker at a time, and to another one if that worker is killed.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from threading import Event, Thread
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = os.environ.get("DS_URL", "http://localhost:4437/v1/stream")
SUBSCRIPTION = "__ds/subscriptions/jobs"
JSON = {"Content-Type": "application/json"}

#: How long it takes until a killed worker is replaced, in milliseconds.
LEASE_MS = 3_000


class Reply(NamedTuple):
    """An answer of the server."""

    status: int
    next_offset: str
    body: Any


class LeaseLost(Exception):
    """Another worker has the lease, or will have it soon."""


def ask(method: str, path: str, body: Any = None, **headers: str) -> Reply:
    """Send a request, again while there is no answer or the server asks to wait."""
    data = None if body is None else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()} | ({} if data is None else JSON)
    while True:
        request = Request(f"{URL}/{path}", data, names, method=method)
        try:
            try:
                answer = urlopen(request, timeout=90)
            except HTTPError as refusal:
                answer = refusal
            with answer:
                content = answer.read()
                if answer.status not in (429, 503):
                    is_json = "json" in answer.headers.get("Content-Type", "") and content
                    next_offset = answer.headers.get("Stream-Next-Offset", "")
                    return Reply(answer.status, next_offset, json.loads(content) if is_json else content)
        except (OSError, HTTPException) as error:
            print(f"no answer, again in a second: {error}", flush=True)
        time.sleep(1)


def set_up() -> None:
    """Create what does not exist yet: to repeat a creation changes nothing."""
    for stream in ("jobs", "results", "wakes"):
        ask("PUT", stream, **{"Content-Type": "application/json"})
    wanted = {"type": "pull-wake", "streams": ["jobs"], "wake_stream": "wakes", "lease_ttl_ms": LEASE_MS}
    created = ask("PUT", SUBSCRIPTION, wanted)
    if created.status not in (200, 201):
        raise SystemExit(f"The subscription cannot be used: {created.body}")


@contextmanager
def extended_lease(fence: dict[str, Any], token: str) -> Iterator[None]:
    """Extend the lease while a job is done: an ack without offsets, three times in the duration of a lease."""
    ended = Event()

    def extend() -> None:
        while not ended.wait(LEASE_MS / 3000):
            ask("POST", f"{SUBSCRIPTION}/ack", fence, Authorization=token)

    thread = Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def work(job: dict[str, Any]) -> str:
    """Do a job. Put your program in the place of this."""
    time.sleep(job.get("seconds", 0.1))
    return f"{job['id']} is done"


def work_off(worker: str, claim: dict[str, Any]) -> None:
    """
    Do the jobs that are pending, then acknowledge them.

    :raises LeaseLost: the lease was over before that.
    """
    fence = {"wake_id": claim["wake_id"], "generation": claim["generation"]}
    token = f"Bearer {claim['token']}"
    # A worker that was killed may have done jobs without an ack: their results are there, so they are left out.
    done = {result["id"] for result in ask("GET", "results?offset=-1").body}
    acks = []
    number = 0
    for stream in claim["streams"]:
        if not stream["has_pending"]:
            continue
        pending = ask("GET", f"{stream['path']}?offset={stream['acked_offset']}")
        for job in pending.body:
            if job["id"] in done:
                continue
            if ask("POST", f"{SUBSCRIPTION}/ack", fence, Authorization=token).status != 200:
                raise LeaseLost
            print(f"{worker} begins {job['id']}", flush=True)
            with extended_lease(fence, token):
                result = {"id": job["id"], "worker": worker, "result": work(job)}
            # The generation grows with each claim: as Producer-Epoch it stops writes of a worker that was replaced.
            epoch = str(claim["generation"])
            stored = ask("POST", "results", result, Producer_Id="jobs", Producer_Epoch=epoch, Producer_Seq=str(number))
            if stored.status == 403:
                raise LeaseLost
            done.add(job["id"])
            number += 1
        acks.append({"stream": stream["path"], "offset": pending.next_offset})
    ask("POST", f"{SUBSCRIPTION}/ack", fence | {"acks": acks, "done": True}, Authorization=token)


def main() -> None:
    """Claim, work, and wait for the next wake, for ever."""
    worker = sys.argv[1] if len(sys.argv) > 1 else f"worker-{os.getpid()}"
    set_up()
    while True:
        # The place in the wake stream is taken before the claim, so that no wake between the two is missed.
        offset = ask("HEAD", "wakes").next_offset
        claim = ask("POST", f"{SUBSCRIPTION}/claim", {"worker": worker})
        if claim.status == 200:
            try:
                work_off(worker, claim.body)
            except LeaseLost:
                print(f"{worker} has lost its lease", flush=True)
        elif claim.status == 409:  # nothing to do, or another worker does it
            ask("GET", f"wakes?offset={offset}&live=long-poll")
        else:
            raise SystemExit(f"The claim was refused: {claim.body}")


if __name__ == "__main__":
    main()
