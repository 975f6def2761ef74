"""Who keeps a storage: one service at a time, since a storage tells its commits to one listener."""

from __future__ import annotations

from weakref import ReferenceType, WeakKeyDictionary, ref

from ..errors import StorageOwned
from ..interfaces import IStorage

# An owner that nobody has any more owns nothing.
_owners: WeakKeyDictionary[IStorage, ReferenceType[object]] = WeakKeyDictionary()


def claim(storage: IStorage, owner: object) -> None:
    """
    Make somebody a storage's owner.

    :raises StorageOwned: it has another.
    """
    held = _owners.get(storage)
    if held is not None and held() not in (None, owner):
        raise StorageOwned(
            "The storage has a service already. Use that one, or wait for the Deferred of its stopService() first."
        )
    _owners[storage] = ref(owner)


def release(storage: IStorage, owner: object) -> None:
    """Take a storage's owner away; nothing, if it is another."""
    held = _owners.get(storage)
    if held is not None and held() is owner:
        del _owners[storage]
