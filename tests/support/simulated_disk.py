"""A disk in memory with power failures, killed processes, failing calls and shortages, set by a test.

What a file has and what it would still have after a power failure are kept apart, and so are names. It is as unkind as
POSIX allows: a name is on the disk when its folder was synced, a file's bytes when it was, in whichever order the rest
comes; but a rename is atomic, and a write leaves the bytes beside it alone.
"""

from __future__ import annotations

import errno as codes
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from durable_streams.server.storage.shortages import SyncFailed

SECTOR: Final = 512

#: The calls that a full disk refuses.
_TAKE_ROOM: Final = frozenset(["write", "reserve", "open", "make_folder"])

#: The calls that need a descriptor.
_TAKE_DESCRIPTORS: Final = frozenset(["open", "make_folder", "sync_folder"])


class PowerFailure(BaseException):
    """A simulated power failure or kill in the middle of a call. A storage must not catch it."""


class _Node:
    """
    An inode: a file without its name.

    :ivar cached: what who reads it sees.
    :ivar stable: what is on the disk for sure.
    :ivar dirty: by sector, which of its bytes were written since.
    :ivar resized: whether the length is not on the disk yet.
    :ivar warm: whether it was read a moment ago.
    """

    __slots__ = ("cached", "dirty", "resized", "stable", "warm")

    def __init__(self) -> None:
        self.cached = bytearray()
        self.stable = bytearray()
        self.dirty: dict[int, tuple[int, int]] = {}
        self.resized = False
        self.warm = False

    def copy(self) -> _Node:
        copy = _Node()
        copy.cached = bytearray(self.cached)
        copy.stable = bytearray(self.stable)
        copy.dirty = dict(self.dirty)
        copy.resized = self.resized
        return copy

    def touch(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR, (end + SECTOR - 1) // SECTOR):
            low, high = max(start, sector * SECTOR), min(end, (sector + 1) * SECTOR)
            known = self.dirty.get(sector)
            self.dirty[sector] = (low, high) if known is None else (min(low, known[0]), max(high, known[1]))

    def put(self, position: int, data: bytes) -> None:
        if position > len(self.cached):
            self.resize(position)
        if position + len(data) > len(self.cached):
            self.resized = True
        self.cached[position : position + len(data)] = data
        self.touch(position, position + len(data))

    def resize(self, size: int) -> None:
        old = len(self.cached)
        if size == old:
            return
        self.resized = True
        if size > old:
            self.cached += bytes(size - old)
            if old < len(self.stable):
                self.touch(old, min(size, len(self.stable)))
            return
        del self.cached[size:]
        for sector, (low, high) in list(self.dirty.items()):
            if low >= size:
                del self.dirty[sector]
            elif high > size:
                self.dirty[sector] = (low, size)

    def settle(self, sector: int) -> None:
        """Sync the written state of a sector to the disk."""
        low, high = self.dirty.pop(sector)
        _place(self.stable, low, bytes(self.cached[low:high]))

    def settle_all(self) -> None:
        for sector in list(self.dirty):
            self.settle(sector)
        if self.resized:
            _resize(self.stable, len(self.cached))
            self.resized = False

    def settle_range(self, start: int, end: int) -> None:
        for sector in range(start // SECTOR, (end + SECTOR - 1) // SECTOR):
            if sector in self.dirty:
                self.settle(sector)
        if end > len(self.stable):
            _resize(self.stable, end)
        if len(self.stable) == len(self.cached):
            self.resized = False

    def lose(self, random: Random, sectors: Sequence[int]) -> None:
        """Fail to write back some sectors: they may be lost, and later syncs report success."""
        seen_still = random.random() < 0.5
        for sector in sectors:
            low, high = self.dirty[sector]
            if random.random() < 0.5:
                self.settle(sector)
                continue
            del self.dirty[sector]
            if not seen_still:
                on_disk = bytes(self.stable[low:high])
                self.cached[low:high] = on_disk + bytes(high - low - len(on_disk))
        if self.resized and random.random() < 0.5:
            _resize(self.stable, len(self.cached))
        self.resized = False

    def after_power_failure(self, random: Random) -> _Node:
        node = _Node()
        stable = bytearray(self.stable)
        fate = _fates(random)
        for _, (low, high) in sorted(self.dirty.items()):
            new = bytes(self.cached[low:high])
            kind = fate()
            if kind == "new":
                _place(stable, low, new)
            elif kind == "zero":
                _place(stable, low, bytes(high - low))
            elif kind == "torn":
                split = random.randint(0, high - low)
                if random.random() < 0.5:
                    _place(stable, low, new[:split])
                else:
                    _place(stable, low + split, new[split:])
        size = len(self.stable)
        if self.resized:
            sizes = [size, len(self.cached)]
            if size < len(self.cached):
                sizes.append(random.randint(size, len(self.cached)))
            size = random.choice(sizes)
        _resize(stable, size)
        node.stable = stable
        node.cached = bytearray(stable)
        return node


def _place(content: bytearray, position: int, data: bytes) -> None:
    if not data:
        return
    if position > len(content):
        content += bytes(position - len(content))
    content[position : position + len(data)] = data


def _resize(content: bytearray, size: int) -> None:
    if size < len(content):
        del content[size:]
    else:
        content += bytes(size - len(content))


def _fates(random: Random) -> Callable[[], str]:
    """Choose which unsynced sectors of a file survive a power failure: all, none, first, last or any."""
    kinds = random.choice(
        [["new"], ["old"], ["new", "old"], ["new", "old", "zero", "torn"], ["new"] * 9 + ["torn"], []]
    )
    if kinds:
        return lambda: random.choice(kinds)
    turn = random.randint(0, 12)
    first, then = random.choice([("new", "old"), ("old", "new")])
    seen = 0

    def one() -> str:
        nonlocal seen
        seen += 1
        return first if seen <= turn else then

    return one


class _Renaming:
    """
    A change of names that is not synced yet.

    :ivar node: of the file that is called ``new`` from then on; None where ``new`` is a folder, or nothing.
    """

    __slots__ = ("folder", "new", "node", "old")

    def __init__(self, old: str | None, new: str | None, node: _Node | None, folder: bool = False) -> None:
        self.old = old
        self.new = new
        self.node = node
        self.folder = folder

    @property
    def paths(self) -> set[str]:
        return {path for path in (self.old, self.new) if path is not None}

    def apply(self, names: dict[str, _Node], folders: set[str]) -> None:
        if self.folder:
            assert self.new is not None
            folders.add(self.new)
            return
        if self.old is not None:
            names.pop(self.old, None)
        if self.new is not None:
            assert self.node is not None
            names[self.new] = self.node


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


class SimulatedFile:
    """A file of a :class:`SimulatedDisk`."""

    def __init__(self, disk: SimulatedDisk, node: _Node, path: str) -> None:
        self._disk = disk
        self.node = node
        self.path = path

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        data = b"".join(parts)
        node, disk = self.node, self._disk
        try:
            disk.begin("write", f"{self.path} {position}+{len(data)}{' durable' if durable else ''}")
            disk.take_room(max(position + len(data) - len(node.cached), 0))
        except OSError as error:
            # The failed call does not report how much it has written.
            if not disk.dead:
                some = disk.random.randint(0, min(len(data), max(len(node.cached) - position, 0)))
                node.put(position, data[:some])
                if durable and error.errno == codes.EIO:
                    node.put(position, data[: max(len(node.cached) - position, 0)])
                    first, last = position // SECTOR, (position + len(data)) // SECTOR
                    node.lose(disk.random, [sector for sector in node.dirty if first <= sector <= last])
            raise
        node.put(position, data)
        if durable:
            disk.between()
            node.settle_range(position, position + len(data))
        disk.between()

    def read(self, position: int, size: int) -> bytes:
        self._disk.check_power()
        self.node.warm = True
        return bytes(self.node.cached[position : position + size])

    def send(self, socket: int, position: int, size: int) -> int:
        return 0

    def read_now(self, position: int, size: int) -> bytes | None:
        self._disk.check_power()
        node = self.node
        if self._disk.random.random() < (self._disk.cold / 10 if node.warm else self._disk.cold):
            node.warm = False
            return None
        data = self.read(position, size)
        return data if len(data) == size else None

    def fill_now(self, buffer: memoryview, position: int) -> bool:
        data = self.read_now(position, len(buffer))
        if data is not None:
            buffer[:] = data
        return data is not None

    def sync(self) -> None:
        disk, node = self._disk, self.node
        try:
            disk.begin("sync", self.path)
        except OSError:
            if not disk.dead:
                node.lose(disk.random, list(node.dirty))
            raise
        node.settle_all()
        disk.between()

    def forget(self) -> None:
        self._disk.check_power()
        if not self.node.dirty and not self.node.resized:
            self.node.cached = bytearray(self.node.stable)

    def reserve(self, size: int) -> None:
        disk, node = self._disk, self.node
        disk.begin("reserve", f"{self.path} {size}")
        more = max(size - len(node.cached), 0)
        try:
            disk.take_room(more)
        except OSError:
            if disk.random.random() < 0.5:
                node.resize(len(node.cached) + min(disk.room, more))
            raise
        if more:
            node.resize(size)
        disk.between()

    def cut(self, size: int) -> None:
        self._disk.begin("cut", f"{self.path} {size}")
        self.node.resize(size)
        self._disk.between()

    def size(self) -> int:
        self._disk.check_power()
        return len(self.node.cached)

    def close(self) -> None:
        """Do nothing: the number of open files is not limited."""


class SimulatedDisk:
    """
    A disk in memory.

    :param seed: decides all that is left to chance.
    :ivar dead: whether the power is off; every call fails then.
    :ivar calls: how many calls that change something were made.
    :ivar capacity: how many bytes files may have together; None for no limit.
    :ivar cold: how often a read has to wait for the disk; one that follows another, a tenth as often.
    :ivar failed_with: the errors that calls were failed with.
    :ivar on_call: hears of every call that changes something.
    """

    def __init__(self, seed: int | str) -> None:
        self.random = Random(seed)
        self.dead = False
        self.calls = 0
        self.capacity: int | None = None
        self.cold = 0.3
        self.failed_with: set[int] = set()
        self.on_call: Callable[[str], None] = lambda _: None
        self._names: dict[str, _Node] = {}
        self._folders = {""}
        self._stable_names: dict[str, _Node] = {}
        self._stable_folders = {""}
        self._pending: list[_Renaming] = []
        self._power_left = -1
        self._fail_left = -1
        self._fail_with = 0
        self._short_after = self._short_for = 0
        self._locked = False

    # Controls for tests

    def stop_at(self, calls: int) -> None:
        """Raise :exc:`PowerFailure` after so many moments; a call has two or three of them."""
        self._power_left = calls

    def fail_at(self, calls: int, error: int) -> None:
        """Let the call after so many calls fail; for ENOSPC, only calls that a full disk rejects are counted."""
        self._fail_left = calls
        self._fail_with = error

    def run_short(self, calls: int, times: int) -> None:
        """After so many calls that need a descriptor, fail so many of them with EMFILE."""
        self._short_after, self._short_for = calls, times

    @property
    def is_short(self) -> bool:
        """Whether a shortage of descriptors is set or in progress."""
        return self._short_for > 0

    def stop_failing(self) -> None:
        """Cancel all set failures and shortages."""
        self._fail_left = -1
        self._short_for = 0
        self.capacity = None

    def stop(self) -> None:
        """Let every call fail with :exc:`PowerFailure` from now on."""
        self.dead = True

    def rot(self, folder: str) -> str | None:
        """
        Flip one bit in the synced bytes of a file below a folder.

        :returns: where; None, if there are none.
        """
        paths = [path for path in self.paths if path.startswith(f"{folder}/") and self._names[path].stable]
        if not paths:
            return None
        path = self.random.choice(paths)
        node = self._names[path]
        position = self.random.randrange(len(node.stable))
        if position // SECTOR in node.dirty or position >= len(node.cached):
            return None
        bit = 1 << self.random.randrange(8)
        node.stable[position] ^= bit
        node.cached[position] ^= bit
        return f"{path} at {position}"

    @property
    def used(self) -> int:
        """The total size of all files, in bytes."""
        return sum(len(node.cached) for node in self._names.values())

    @property
    def room(self) -> int:
        """The free space, in bytes."""
        return 1 << 40 if self.capacity is None else max(self.capacity - self.used, 0)

    def killed(self) -> SimulatedDisk:
        """Return the disk after a kill of the process: all written bytes are kept."""
        self.dead = True
        other = self._next()
        copies: dict[int, _Node] = {}

        def copy(node: _Node) -> _Node:
            if id(node) not in copies:
                copies[id(node)] = node.copy()
            return copies[id(node)]

        other._names = {path: copy(node) for path, node in self._names.items()}
        other._stable_names = {path: copy(node) for path, node in self._stable_names.items()}
        other._folders = set(self._folders)
        other._stable_folders = set(self._stable_folders)
        other._pending = [
            _Renaming(one.old, one.new, None if one.node is None else copy(one.node), one.folder)
            for one in self._pending
        ]
        return other

    def crash(self) -> SimulatedDisk:
        """Return the disk after a power failure: unsynced bytes are kept, lost, or kept in part."""
        self.dead = True
        other = self._next()
        names = dict(self._stable_names)
        folders = set(self._stable_folders)
        fates: dict[str, Callable[[], str]] = {}
        for one in self._pending:
            folder = _parent(min(one.paths))
            fate = fates.setdefault(folder, _fates(self.random))
            if fate() in ("new", "torn"):
                one.apply(names, folders)
        reachable = {folder for folder in folders if all(above in folders for above in _above(folder))}
        nodes: dict[int, _Node] = {}
        for path, node in sorted(names.items()):
            if _parent(path) in reachable:
                if id(node) not in nodes:
                    nodes[id(node)] = node.after_power_failure(self.random)
                other._names[path] = nodes[id(node)]
        other._stable_names = dict(other._names)
        other._folders = set(reachable)
        other._stable_folders = set(reachable)
        return other

    def _next(self) -> SimulatedDisk:
        other = type(self)(self.random.getrandbits(64))
        other.cold = self.cold
        other.on_call = self.on_call
        return other

    def content(self, path: str) -> bytes:
        """Return the content of a file, even if the disk is stopped or failing."""
        return bytes(self._names[path].cached)

    @property
    def paths(self) -> list[str]:
        """Return the paths of all files."""
        return sorted(self._names)

    # Called by its files

    def check_power(self) -> None:
        if self.dead:
            raise OSError(codes.EIO, "The power is off")

    def between(self) -> None:
        """Count a moment, and raise :exc:`PowerFailure` if it was set for this one."""
        if self._power_left >= 0:
            self._power_left -= 1
            if self._power_left < 0:
                self.dead = True
                self.on_call("-- stops here")
                raise PowerFailure

    def begin(self, call: str, what: str) -> None:
        """Begin a call that changes the disk: count it, and raise the error that was set for it."""
        self.check_power()
        self.between()
        self.calls += 1
        self.on_call(f"{call} {what}")
        if call in _TAKE_DESCRIPTORS:
            self.take_descriptor(what)
        if self._fail_left >= 0 and (self._fail_with != codes.ENOSPC or call in _TAKE_ROOM):
            self._fail_left -= 1
            if self._fail_left < 0:
                self.failed_with.add(self._fail_with)
                self.on_call(f"-- fails with {codes.errorcode[self._fail_with]}")
                kind = SyncFailed if call.startswith("sync") or what.endswith(" durable") else OSError
                raise kind(self._fail_with, f"made to fail: {call} {what}")

    def take_descriptor(self, what: str) -> None:
        if self._short_for and self._short_after:
            self._short_after -= 1
        elif self._short_for:
            self._short_for -= 1
            self.failed_with.add(codes.EMFILE)
            self.on_call("-- is out of descriptors")
            raise OSError(codes.EMFILE, f"made to be out of descriptors: {what}")

    def take_room(self, size: int) -> None:
        if size and size > self.room:
            self.failed_with.add(codes.ENOSPC)
            self.on_call("-- is full")
            raise OSError(codes.ENOSPC, "made to be full")

    # The Disk interface

    def open(self, path: str, new: bool = False) -> SimulatedFile:
        self.check_power()
        if not new:
            if path not in self._names:
                raise FileNotFoundError(codes.ENOENT, "no such file", path)
            self.take_descriptor(path)
            return SimulatedFile(self, self._names[path], path)
        if _parent(path) not in self._folders:
            raise FileNotFoundError(codes.ENOENT, "no such folder", path)
        if path in self._names:
            raise FileExistsError(codes.EEXIST, "there is such a file", path)
        self.begin("open", path)
        node = self._names[path] = _Node()
        self._pending.append(_Renaming(None, path, node))
        self.between()
        return SimulatedFile(self, node, path)

    def names(self, folder: str) -> list[str]:
        self.check_power()
        paths = [path for path in (*self._names, *self._folders) if path and _parent(path) == folder]
        return sorted(path.rpartition("/")[2] for path in paths)

    def make_folder(self, path: str) -> None:
        self.check_power()
        missing = [place for place in (path, *_above(path)) if place not in self._folders]
        if not missing:
            return
        self.begin("make_folder", path)
        for place in reversed(missing):
            self._folders.add(place)
            self._pending.append(_Renaming(None, place, None, folder=True))
            self.between()
        try:
            for place in missing:
                self.sync_folder(_parent(place))
        except OSError:
            # A file whose name is not synced may be lost.
            self._folders -= {one.new for one in self._pending if one.folder and one.new in missing}
            self._pending = [one for one in self._pending if not (one.folder and one.new in missing)]
            raise

    def rename(self, path: str, new_path: str) -> None:
        self.check_power()
        if path not in self._names:
            raise FileNotFoundError(codes.ENOENT, "no such file", path)
        if _parent(new_path) not in self._folders:
            raise FileNotFoundError(codes.ENOENT, "no such folder", new_path)
        self.begin("rename", f"{path} {new_path}")
        node = self._names.pop(path)
        self._names[new_path] = node
        self._pending.append(_Renaming(path, new_path, node))
        self.between()

    def remove(self, path: str) -> None:
        self.check_power()
        if path not in self._names:
            return
        self.begin("remove", path)
        del self._names[path]
        self._pending.append(_Renaming(path, None, None))
        self.between()

    def sync_folder(self, path: str) -> None:
        self.check_power()
        if path not in self._folders:
            raise FileNotFoundError(codes.ENOENT, "no such folder", path)
        self.begin("sync_folder", path or ".")
        wanted: set[str] = set()
        settled: list[_Renaming] = []
        for one in reversed(self._pending):
            # Syncing a name also syncs its earlier changes.
            if any(_parent(place) == path or place in wanted for place in one.paths):
                wanted |= one.paths
                settled.append(one)
        for one in reversed(settled):
            one.apply(self._stable_names, self._stable_folders)
        self._pending = [one for one in self._pending if one not in settled]
        self.between()

    def free(self) -> int:
        return self.room

    def lock(self, path: str, owner: bytes) -> bytes | None:
        self.check_power()
        if self._locked:
            return b"another"
        if path not in self._names:
            node = self._names[path] = _Node()
            self._pending.append(_Renaming(None, path, node))
        self._names[path].resize(0)
        self._names[path].put(0, owner)
        self._locked = True
        return None

    def unlock(self) -> None:
        self._locked = False

    def in_place(self) -> bool:
        self.check_power()
        return True

    def mode(self) -> int:
        return 0o700


def _above(path: str) -> list[str]:
    """Return the parent folders of a folder, the nearest first."""
    above = []
    while path:
        path = _parent(path)
        above.append(path)
    return above
