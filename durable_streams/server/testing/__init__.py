"""For those who write a storage, or a program that talks to the server.

- :class:`StorageContract`: what every storage must do, as tests to mix into a test case;
- :class:`DurableStorageContract`: the same, and what one must do that keeps its streams;
- :func:`storage_machine`: the same by random walks beside a plain model (this one needs ``hypothesis``);
- :class:`MemoryServer`: a whole server that forgets, for the tests of its clients.

A storage's own tests begin so::

    class TestMyStorage(StorageContract, twisted.trial.unittest.TestCase):
        def make_storage(self, limits):
            return MyStorage(self.mktemp(), limits)
"""

from .contract import DurableStorageContract, StorageContract
from .machine import storage_machine
from .server import MemoryServer
from .values import settled

__all__ = ["DurableStorageContract", "MemoryServer", "StorageContract", "settled", "storage_machine"]
