"""Ownership of storages: each has at most one service, because it notifies one listener of its commits."""

from __future__ import annotations

from weakref import ReferenceType, WeakKeyDictionary, ref

from ..errors import StorageOwned
from ..interfaces import IStorage

# Weak references: an owner that was garbage-collected owns nothing.
_owners: WeakKeyDictionary[IStorage, ReferenceType[object]] = WeakKeyDictionary()


def claim(storage: IStorage, owner: object) -> None:
    """
    Make an object the owner of a storage.

    :raises StorageOwned: the storage has another owner.
    """
    held = _owners.get(storage)
    if held is not None and held() not in (None, owner):
        raise StorageOwned(
            "The storage has a service already. Use that one, or wait for the Deferred of its stopService() first."
        )
    _owners[storage] = ref(owner)


def release(storage: IStorage, owner: object) -> None:
    """End the ownership of a storage; do nothing if it has another owner."""
    held = _owners.get(storage)
    if held is not None and held() is owner:
        del _owners[storage]
