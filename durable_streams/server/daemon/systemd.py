"""What a service manager is told of the daemon (sd_notify), where there is one that wants to know."""

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
    """Say that the configuration is read again, until :data:`READY` is said."""
    # CLOCK_MONOTONIC, as the manager has it, to tell this reload from an earlier one.
    return f"RELOADING=1\nMONOTONIC_USEC={clock_gettime_ns(1) // 1000}"


def notify(state: str, environment: Mapping[str, str] = os.environ) -> bool:
    """
    Tell the service manager.

    :param state: lines of ``NAME=value``.
    :returns: whether there was one to tell. That it can't be told is logged, and no reason to fail.
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
