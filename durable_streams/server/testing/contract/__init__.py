"""The contract that every storage keeps, as tests."""

from __future__ import annotations

from .announcing import Announcing
from .appending import Appending
from .concurrent import Concurrent
from .creating import Creating
from .deleting import Deleting
from .durable import Durable
from .forks import Forks
from .lifetimes import Lifetimes
from .limits import Limits
from .reading import Reading
from .writers import Writers


class StorageContract(
    Creating,
    Appending,
    Writers,
    Reading,
    Deleting,
    Lifetimes,
    Forks,
    Limits,
    Announcing,
    Concurrent,
):
    """
    What every :class:`.IStorage` must do, to be mixed into a ``twisted.trial.unittest.TestCase``.

    A user of it says in :meth:`make_storage` what is to be tested. It may answer now or later, as every method of a
    storage may. A test passes times of its own to the storage; only the announcements of commits are waited for by the
    clock on the wall, ``patience`` seconds each.
    """


class DurableStorageContract(StorageContract, Durable):
    """
    What every :class:`.IStorage` must do that keeps its streams when it is closed.

    A user of it says in :meth:`make_storage` what is to be tested, and in :meth:`reopen` how it is closed and opened
    again.
    """
