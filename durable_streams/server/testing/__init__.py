"""Test support for authors of storages and of client programs.

- :class:`StorageContract`: the tests that every :class:`.IStorage` must pass, as a mixin for a test case;
- :class:`DurableStorageContract`: the same, with tests for a storage whose streams survive closing;
- :class:`SharedStorageContract`: the first without the caller's clocks, for a storage with a clock of its own;
- :func:`storage_machine`: random operations on a storage and on a model, compared (needs ``hypothesis``);
- :class:`MemoryServer`: a server with streams in memory, for tests of its clients.

To run the contract on a storage::

    class TestMyStorage(StorageContract, twisted.trial.unittest.TestCase):
        def make_storage(self, limits):
            return MyStorage(self.mktemp(), limits)
"""

from .contract import DurableStorageContract, SharedStorageContract, StorageContract
from .machine import storage_machine
from .server import MemoryServer
from .values import settled

__all__ = [
    "DurableStorageContract",
    "MemoryServer",
    "SharedStorageContract",
    "StorageContract",
    "settled",
    "storage_machine",
]
