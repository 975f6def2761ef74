"""The contract of :class:`.IStorage`, as tests."""

from __future__ import annotations

from .announcing import AnnouncementContract
from .appending import AppendContract
from .concurrent import ConcurrencyContract
from .creating import CreateContract
from .deleting import DeleteContract
from .durable import DurabilityContract
from .forks import ForkContract
from .installing import InstallContract
from .lifetimes import LifetimeContract
from .limits import LimitContract
from .reading import ReadContract
from .records import ListingContract, RecordContract
from .values import ValueContract
from .wall_clock import WallClockContract
from .writers import WriterContract


class SharedStorageContract(
    CreateContract,
    AppendContract,
    WriterContract,
    ReadContract,
    RecordContract,
    ListingContract,
    InstallContract,
    DeleteContract,
    LifetimeContract,
    ForkContract,
    LimitContract,
    ValueContract,
    AnnouncementContract,
    ConcurrencyContract,
):
    """
    Tests that every :class:`.IStorage` with a clock of its own must pass: a mixin for a trial ``TestCase``.

    Such a storage is shared by several servers, whose clocks may differ. The test case overrides :meth:`make_storage`,
    which may return a storage or an awaitable, and :meth:`set_time`.
    """


class StorageContract(SharedStorageContract, WallClockContract):
    """
    Tests that every other :class:`.IStorage` must pass: a mixin for ``twisted.trial.unittest.TestCase``.

    The test case overrides :meth:`make_storage`, which may return a storage or an awaitable. Tests pass their own times
    to the storage; only commit announcements are awaited in real time, up to ``patience`` seconds each.
    """


class DurableStorageContract(StorageContract, DurabilityContract):
    """
    Tests that every :class:`.IStorage` must pass whose streams survive closing.

    The test case overrides :meth:`make_storage` and :meth:`reopen`.
    """
