"""A daemon whose workers are allowed with ``storage.mode`` ``memory``, in which each has streams of its own."""

from __future__ import annotations

from twisted.scripts.twistd import run

from durable_streams.server.config import choices

if __name__ == "__main__":
    choices.SHARED_MODES = frozenset({"memory", "postgres"})  # type: ignore[misc]
    run()
