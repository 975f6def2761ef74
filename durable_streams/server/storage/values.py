"""The values of a storage: small records by key, beside its streams. See :meth:`.IStorage.write_values`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ..errors import InvalidRequest, ValuesChanged
from .name_index import NameIndex

#: The maximum length of a key in bytes of UTF-8, and of a value in bytes.
MAX_KEY: Final = 8_192
MAX_VALUE: Final = 4 << 20

#: The maximum numbers of keys and of bytes in one call: a call of this size blocks the reactor for about 20 ms.
MAX_KEYS_AT_ONCE: Final = 10_000
MAX_BYTES_AT_ONCE: Final = 16 << 20

#: The memory of a value besides its bytes and those of its key: 130 to 190, measured with CPython 3.11.
VALUE_BYTES: Final = 160


class ValueTable:
    """
    Values by key, in the order of the keys.

    :ivar size: how many bytes of metadata the limit counts for them.
    :ivar lsn: the LSN of the last change; 0 if it is not one of this process.
    """

    __slots__ = ("_keys", "_values", "lsn", "size")

    def __init__(self, values: Mapping[str, bytes] = {}) -> None:
        self._values: dict[str, bytes] = {}
        self._keys = NameIndex()
        self.size = 0
        self.lsn = 0
        self.apply(values)

    def __len__(self) -> int:
        return len(self._values)

    def check(self, expected: Mapping[str, bytes | None]) -> None:
        """
        Compare values with expected ones.

        :raises ValuesChanged: one is different.
        """
        values = self._values
        for key, value in expected.items():
            if values.get(key) != value:
                raise ValuesChanged(key)

    def changes(self, puts: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
        """Return those of some puts that change anything."""
        values = self._values
        return {key: value for key, value in puts.items() if values.get(key) != value}

    def growth(self, puts: Mapping[str, bytes | None]) -> int:
        """Return by how many bytes some puts increase the size."""
        values = self._values
        return sum(
            (0 if value is None else _size(key, value)) - (_size(key, values[key]) if key in values else 0)
            for key, value in puts.items()
        )

    def apply(self, puts: Mapping[str, bytes | None]) -> None:
        """Write values, and remove those that are None."""
        self.size += self.growth(puts)
        values, keys = self._values, self._keys
        for key, value in puts.items():
            if value is not None:
                if key not in values:
                    keys.add(key)
                values[key] = value
            elif values.pop(key, None) is not None:
                keys.remove(key)

    def page(
        self, prefix: str = "", after: str = "", max_count: int = 1000, max_bytes: int | None = None
    ) -> list[tuple[str, bytes]]:
        """
        Return values in the order of their keys, from the first key after ``after``.

        :param prefix: only those whose key begins with it.
        :param max_bytes: end the page, which has one value at least, when it is larger than this.
        """
        values = self._values
        found: list[tuple[str, bytes]] = []
        size = 0
        if max_count <= 0:
            return found
        for key in self._keys.after(after, prefix):
            if not key.startswith(prefix):
                break
            value = values[key]
            found.append((key, value))
            size += len(key) + len(value)
            if len(found) >= max_count or (max_bytes is not None and size > max_bytes):
                break
        return found


def check_puts(puts: Mapping[str, bytes | None], expected: Iterable[str]) -> int:
    """
    Check the keys and the sizes of a call of :meth:`.IStorage.write_values`.

    :returns: how many bytes the keys and values of ``puts`` take.
    :raises InvalidRequest: a key is malformed, or something is too long.
    """
    size = 0
    if len(puts) > MAX_KEYS_AT_ONCE:
        raise InvalidRequest(f"A call writes at most {MAX_KEYS_AT_ONCE} values, not {len(puts)}. Write them in parts.")
    for key, value in puts.items():
        length = 0 if value is None else len(value)
        if length > MAX_VALUE:
            raise InvalidRequest(f"The value of {key} has {length} bytes; at most {MAX_VALUE} are allowed.")
        size += _check_key(key) + length
    for key in expected:
        if key not in puts:
            _check_key(key)
    if size > MAX_BYTES_AT_ONCE:
        raise InvalidRequest(f"A call writes at most {MAX_BYTES_AT_ONCE} bytes, not {size}. Write them in parts.")
    return size


def _check_key(key: str) -> int:
    """
    Return how many bytes a key has.

    :raises InvalidRequest: it is empty, too long, or not text.
    """
    try:
        length = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"The key {key!a} cannot be encoded as UTF-8.") from None
    if not 0 < length <= MAX_KEY:
        raise InvalidRequest(f"A key has 1 to {MAX_KEY} bytes of UTF-8, not {length}.")
    return length


def _size(key: str, value: bytes) -> int:
    return VALUE_BYTES + (len(key) if key.isascii() else len(key.encode())) + len(value)
