"""
A stand-in for ``systemctl``: it runs the command of a unit as systemd would, until it has notified that it is ready.

Of a unit it knows Environment=, EnvironmentFile=, ExecStart= and TimeoutStopSec=. It starts one at most.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(os.environ["ROOT"])
UNIT = ROOT / "etc/systemd/system/durable-streams.service"
PID = ROOT / "pid"
READY_SECONDS = 60.0


def settings_of(key: str) -> list[str]:
    """Return the values of a key of the unit."""
    return re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text())


def start() -> None:
    """Start the unit and wait until it is ready."""
    environment = {"PATH": os.environ["PATH"]}
    environment |= dict(line.split("=", 1) for line in settings_of("Environment"))
    for path in settings_of("EnvironmentFile"):
        file = Path(path.removeprefix("-"))
        if file.exists() or not path.startswith("-"):
            environment |= dict(line.split("=", 1) for line in file.read_text().splitlines() if line)
    [command] = settings_of("ExecStart")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications:
        address = f"\0durable-streams-walkthrough-{os.getpid()}"
        notifications.bind(address)
        notifications.settimeout(READY_SECONDS)
        environment["NOTIFY_SOCKET"] = f"@{address[1:]}"
        with (ROOT / "journal").open("ab") as journal:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=journal,
                start_new_session=True,
            )
        PID.write_text(str(process.pid))
        while "READY=1" not in notifications.recv(4096).decode().splitlines():
            pass


def stop() -> None:
    """Stop the unit and wait until it has ended."""
    [seconds] = settings_of("TimeoutStopSec")
    process = int(PID.read_text())
    os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + float(seconds)
    while Path(f"/proc/{process}").exists() and "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text():
        if time.monotonic() > deadline:
            sys.exit("the unit has not stopped")
        time.sleep(0.05)
    PID.unlink()


def main() -> None:
    """Do what the arguments say."""
    verb = sys.argv[1]
    if verb == "daemon-reload":
        return
    if PID.exists():
        stop()
    if verb in {"enable", "start", "restart"}:
        start()


main()
