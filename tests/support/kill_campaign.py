"""A data directory whose server is started and killed again and again."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from .killed_daemon import KilledDaemon, Order, Snare

#: The storages that keep acknowledged data when they are killed.
MODES = ("file-durable", "file-fast", "acid")

#: How long, in seconds, a trap may take to go off.
TRAP_PATIENCE = 20.0


class KillCampaign:
    """
    The settings of the servers, their directory, and the random numbers of a run.

    As a context, it removes the directory at the end; if the run fails, it prints where the directory is, and the seed.

    :param prefix: of the directory's name.
    :param settings: by their names in the environment, besides those of the storage.
    :param more: other fields of :class:`.Order`.
    :ivar mark: the file that says that a trap went off.
    """

    def __init__(self, prefix: str, mode: str, seed: int | str, settings: dict[str, str], **more: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=prefix))
        self.mark = self.folder / "mark"
        self.rng = random.Random(seed)
        self._seed = seed
        storage = {"storage__mode": mode, "storage__data_dir": str(self.folder / "data")}
        self._order = Order(storage | settings, **more)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            print(f"The data directory is in {self.folder}, the seed {self._seed!r}.")

    def close(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.folder)

    def start(self, point: str | None = None, passage: int = 1, action: int = 0) -> KilledDaemon:
        """Start a server, with a trap if ``point`` is set."""
        self.mark.unlink(missing_ok=True)
        snare = None if point is None else Snare(point, passage, str(self.mark), action)
        return KilledDaemon(replace(self._order, snare=snare), self.folder)
