"""The program of a worker: ``python -m durable_streams.server.daemon.workers.launching NUMBER PIPE REACTOR``.

It imports nothing of Twisted before the environment is that of a process to which sockets were passed.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module


def main(pipe: int, reactor: str) -> int:
    """
    Serve as a worker, and return the exit status.

    :param pipe: the descriptor of the pipe to the supervisor.
    :param reactor: the module that installs the supervisor's kind of reactor.
    """
    # Ctrl-C and the end of a terminal's session reach the whole group of processes. The supervisor decides.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if "LISTEN_FDS" in os.environ:
        # twisted.internet.endpoints reads it when it is imported.
        os.environ["LISTEN_PID"] = str(os.getpid())
    import_module(reactor).install()
    from .worker import run  # noqa: PLC0415 (not before the above)

    return run(pipe)


if __name__ == "__main__":
    # The number is there for lists of processes.
    sys.exit(main(int(sys.argv[2]), sys.argv[3]))
