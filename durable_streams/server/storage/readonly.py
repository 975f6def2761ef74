"""A read-only view of a data directory. Only the content of the lock file may change."""

from __future__ import annotations

import errno
import os

from .disk import RealDisk, RealFile

#: What is said by a place where nothing can be written, or not by us.
_READ_ONLY = frozenset([errno.EROFS, errno.EACCES, errno.EPERM])


class ReadOnlyDisk(RealDisk):
    """A folder of the operating system that is only read. It may be on a read-only file system."""

    def open(self, path: str, new: bool = False) -> RealFile:
        if new:
            raise _refusal(path)
        return RealFile(self.descriptor(path, os.O_RDONLY))

    def make_folder(self, path: str) -> None:
        raise _refusal(path)

    def rename(self, path: str, new_path: str) -> None:
        raise _refusal(path)

    def remove(self, path: str) -> None:
        raise _refusal(path)

    def lock(self, path: str, owner: bytes) -> bytes | None:
        place = self.root / path
        missing = not place.exists()
        try:
            holder = super().lock(path, owner)
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            # Then the id of the process that has the lock is not reported.
            return None if missing else self._take_lock(path, os.O_RDONLY)
        if missing and os.geteuid() == 0:
            # Whoever runs the server must be able to lock it after us.
            kept_by = self.root.stat()
            os.chown(place, kept_by.st_uid, kept_by.st_gid, follow_symlinks=False)
        return holder

    def unlock(self) -> None:
        try:
            super().unlock()
        except OSError:
            # Nothing was said there.
            self._release()


def _refusal(path: str) -> OSError:
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path)
