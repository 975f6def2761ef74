"""Handling the signals that end a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    """
    Handle SIGINT (Ctrl-C) and SIGTERM inside of a block; in the main thread, as only that can.

    A signal that is ignored stays so: a shell without job control starts its jobs in the background with SIGINT
    ignored, so that Ctrl-C ends only what runs in the foreground.

    :param handler: called with the signal's number and the current frame.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
