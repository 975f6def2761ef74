"""A process that exports what a data directory has, then imports a document into it.

``python -m tests.process.imports MODE DIRECTORY DOCUMENT EXPORT`` writes the export to the file EXPORT, prints a line
when that is done, and another when everything is imported. It is killed in between.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from durable_streams.server import StreamService
from durable_streams.server.transfer import export_streams, import_streams
from tests.support.killed_program import small_storage


async def _run(reactor: Any, mode: str, directory: str, document: str, export: str) -> None:
    service = StreamService(small_storage(mode, directory, reactor))
    service.startService()
    await service.when_open()
    with open(export, "wb") as out:
        await export_streams(service, out)
    print("exported", flush=True)
    with open(document, "rb") as source:
        await import_streams(service, source, "replace")
    print("imported", flush=True)
    await service.stopService()


def main(*arguments: str) -> None:
    """Run the program."""
    react(lambda reactor: Deferred.fromCoroutine(_run(reactor, *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
