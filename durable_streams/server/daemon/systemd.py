"""Notifications of a service manager (sd_notify)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from time import clock_gettime_ns
from typing import Final

from twisted.logger import Logger

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"

_log = Logger()


def reloading() -> str:
    """Return the notification that a reload has begun; :data:`READY` ends it."""
    # CLOCK_MONOTONIC, by which the manager distinguishes this reload from earlier ones.
    return f"RELOADING=1\nMONOTONIC_USEC={clock_gettime_ns(1) // 1000}"


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """
    Send a state to the service manager; log an error if that fails.

    :param state: lines of ``NAME=value``.
    :returns: whether the state was sent; False without a service manager.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(state.encode())
    except OSError as error:
        _log.warn("Cannot notify the service manager at {address}: {reason}", address=address, reason=error)
        return False
    return True
