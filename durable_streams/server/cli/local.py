"""The streams of a data directory that no server has open, or of a database, for commands without a server."""

from __future__ import annotations

import gc
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from ..config.choices import ACID_BACKENDS, STORAGE_MODES
from ..config.layers import read_layers
from ..config.sections import Sections
from ..config.settings import Settings
from ..config.validation import ConfigError, validate_storage
from .errors import CommandError
from .options import SettingsFiles
from .output import note

if TYPE_CHECKING:
    from ..streams import Streams

#: What an empty data directory may contain: a mount point has the last one.
_EMPTY: Final = frozenset({"FORMAT.new", "LOCK", "lost+found"})

#: Names that only a data directory has.
_PARTS: Final = frozenset({"journal", "checkpoint", "acid.sqlite"})

#: A command keeps less data in memory than a server, which serves recent data from there: in bytes.
_CHECKPOINT_BYTES: Final = 8_388_608


class LocalData(Struct, frozen=True):
    """
    The storage of the settings.

    :ivar directory: its data directory; None if it is in memory or in a database.
    """

    settings: Settings
    directory: Path | None

    @property
    def place(self) -> str:
        """What holds the streams, for messages."""
        if self.directory is not None:
            return f"the data directory {self.directory}"
        return "the database" if _mode_of(self.settings) == "postgres" else "the storage in memory"


def local_data(files: SettingsFiles, create: bool = False, memory: bool = False) -> LocalData:
    """
    Read the settings, and check that this user may open the data directory. Nothing is opened or changed.

    A database needs no check: any number of servers and commands share it.

    The settings are not validated as a whole: a command that lists streams does not need a server's certificates.

    :param create: whether the data directory may be missing or empty; then a storage is created in it.
    :param memory: whether a storage in memory, which is empty, will do.
    :raises CommandError: the settings cannot be read, the data is in the memory of a server, or the directory is
        missing or another user's.
    """
    try:
        loaded = read_layers(files.profile, files.config, os.environ, files.config_dir)
        if _mode_of(loaded.settings) == "postgres":
            validate_storage(loaded.settings, loaded.sources)
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
    settings = Settings.of(loaded.settings)
    if _mode_of(settings) == "postgres":
        return LocalData(settings, None)
    setting = _setting_of_memory(settings)
    if setting is not None:
        if not memory:
            raise CommandError(
                f"{setting}: the streams are in the memory of the server, and no other process can reach them. "
                f"{_advice(settings)} For streams on a disk, set storage.mode and storage.data_dir as for the server."
            )
        return LocalData(settings, None)
    directory = Path(settings.storage.data_dir).absolute()
    _check_directory(directory, create)
    return LocalData(settings, directory)


def warn_about_memory(data: LocalData) -> None:
    """Print a warning if the storage is in memory: it is empty, and nothing stays in it."""
    setting = _setting_of_memory(data.settings)
    if setting is not None:
        note(f"Warning: {setting}: this command has an empty storage of its own. {_advice(data.settings)}")


@asynccontextmanager
async def opened(data: LocalData, reactor: Any) -> AsyncIterator[Streams]:
    """
    Open the storage as a server does, and close it at the end.

    :raises CommandError: it cannot be opened, or a server has its directory open.
    """
    from ..clocks import make_steady  # noqa: PLC0415 (imports Twisted, which --help does not need)
    from ..daemon.storages import storage_from  # noqa: PLC0415 (as above)
    from ..errors import StorageError, StorageInUse  # noqa: PLC0415 (as above)
    from ..streams import Streams  # noqa: PLC0415 (as above)

    make_steady(reactor)
    try:
        streams = Streams(storage_from(data.settings, reactor, checkpoint_bytes=_CHECKPOINT_BYTES), reactor)
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
    # The collections while 100,000 streams are loaded take 0.5 s and find nothing.
    gc.disable()
    try:
        await streams.load(0.0, reactor)
    except StorageInUse as error:
        raise CommandError(
            f"The data directory {data.directory} is in use by process {error.process}. {_advice(data.settings)} "
            "Or stop that process."
        ) from None
    except PermissionError as error:
        raise CommandError(
            f"Cannot open {error.filename or data.directory}: permission denied. Run the command as the server's user."
        ) from None
    except (StorageError, OSError) as error:
        raise CommandError(f"Cannot open {data.place} (storage.mode {data.settings.storage.mode}): {error}") from None
    finally:
        gc.freeze()
        gc.enable()
    try:
        if _mode_of(data.settings) == "postgres":
            await _wait_for_connections(streams, reactor, data.settings.storage.postgres.wait_ms / 1000)
        yield streams
    finally:
        await streams.stopService()


async def _wait_for_connections(streams: Streams, reactor: Any, seconds: float) -> None:
    """
    Wait until the storage has opened its connections to the database.

    :raises CommandError: it has not after so many seconds.
    """
    from twisted.internet.task import deferLater  # noqa: PLC0415 (imports Twisted, which --help does not need)

    until = monotonic() + seconds
    while (obstacle := streams.obstacle()) is not None:
        if monotonic() > until:
            raise CommandError(f"{obstacle} The command has waited for storage.postgres.wait_ms.")
        await deferLater(reactor, 0.01)


def _mode_of(settings: Sections) -> str:
    return STORAGE_MODES[settings.storage.mode]


def _setting_of_memory(settings: Settings) -> str | None:
    """Return the setting that keeps the streams in memory, with its value; None if they are on a disk."""
    storage = settings.storage
    if STORAGE_MODES[storage.mode] == "memory":
        return f"storage.mode is {storage.mode}"
    if STORAGE_MODES[storage.mode] == "acid" and ACID_BACKENDS[storage.acid_backend] == "in-memory":
        return f"storage.acid_backend is {storage.acid_backend}"
    return None


def _advice(settings: Settings) -> str:
    """Return how to reach a running server of these settings."""
    admin, scheme = settings.admin, "http" if settings.transport.mode == "http" else "https"
    place = admin.bind_address or settings.server.bind_address
    host, _, port = place.rpartition(":")
    if host.strip("[]") in ("0.0.0.0", "::", ""):  # noqa: S104 (a comparison)
        place = f"localhost:{port}"
    url = f"--url {scheme}://{place}{admin.base_path}/streams"
    if admin.enabled:
        return f"Reach the running server with {url}."
    return f"Reach the running server with {url}, after a start with admin.enabled = true."


def _check_directory(directory: Path, create: bool) -> None:
    """
    Check that a data directory exists and is this user's.

    :raises CommandError: it does not exist, or belongs to another user: files of this user would stop its server.
    """
    correct = "Correct storage.data_dir: the command reads the settings that the server reads, such as --config FILE."
    try:
        names = frozenset(os.listdir(directory))
    except FileNotFoundError:
        if create:
            return
        raise CommandError(f"The data directory {directory} does not exist. {correct}") from None
    except NotADirectoryError:
        raise CommandError(f"The data directory {directory} is not a directory. {correct}") from None
    except OSError as error:
        raise CommandError(
            f"Cannot read the data directory {directory}: {error.strerror}. Run the command as the server's user."
        ) from None
    if not create and "FORMAT" not in names:
        reason = "is empty" if names <= _EMPTY else "is not a data directory of this server: it has no file FORMAT"
        lost = (
            ""
            if names.isdisjoint(_PARTS)
            else " If it was lost, durable-streams-server check says what to write into it."
        )
        raise CommandError(f"{directory} {reason}. {correct}{lost}")
    owner = (directory / "FORMAT" if "FORMAT" in names else directory).stat().st_uid
    if owner != os.geteuid():
        raise CommandError(
            f"The data directory {directory} belongs to the user {_name_of(owner)}, and files of another user in it "
            f"would keep the server from starting. Run the command as that user: sudo -u {_name_of(owner)} "
            "durable-streams-server ..."
        )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
