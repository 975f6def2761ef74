"""The file of static tokens: reading it, and changing it in one step beside other commands."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from ...regular_files import NotAFileError
from ...secret_files import SharedFileError, read_secret_file
from ..locked_file import FileNotChanged, LockedFile, locked_file
from .records import LoadedRecord, RecordError, TokenRecord, parse_record, render_record

#: The largest size of the file, in bytes; a token takes about 250.
MAX_SIZE: Final = 4_194_304


class TokenFileError(Exception):
    """The file cannot be used or changed; the message says why and what to do, without a hash."""


class TokenFileDamaged(TokenFileError):
    """The content of the file cannot be used; to read it again does not help before it is changed."""


class NoSuchTokens(TokenFileError):
    """The file does not have some tokens; ``ids`` are theirs."""

    def __init__(self, path: str, ids: Collection[str]) -> None:
        names = ", ".join(sorted(ids))
        many = len(ids) > 1
        super().__init__(
            f"{path} has no {'tokens' if many else 'token'} of the {'ids' if many else 'id'} {names}. No token was "
            "revoked. See the ids with: durable-streams-server token list"
        )
        self.ids = tuple(sorted(ids))


def read_tokens(path: str, known: Mapping[bytes, LoadedRecord] | None = None) -> dict[bytes, LoadedRecord]:
    """
    Read the file. Empty lines and lines that begin with # are ignored.

    :param known: what an earlier call returned; lines that are the same are not parsed again.
    :returns: the records by their lines.
    :raises TokenFileError: the file cannot be used.
    """
    return parse_tokens(_read(path), path, known or {})


def parse_tokens(data: bytes, path: str, known: Mapping[bytes, LoadedRecord]) -> dict[bytes, LoadedRecord]:
    """
    Return the records in the content of a file; the parameters are those of :func:`read_tokens`.

    :raises TokenFileDamaged: a line is not a record, or repeats an id.
    """
    records: dict[bytes, LoadedRecord] = {}
    places: dict[str, int] = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        try:
            loaded = known.get(text) or parse_record(text)
        except RecordError as error:
            raise TokenFileDamaged(
                f"Line {number} of {path} {error}. Correct or remove the line; make tokens with: "
                "durable-streams-server token create"
            ) from None
        earlier = places.setdefault(loaded.record.id, number)
        if earlier != number:
            raise TokenFileDamaged(
                f"Lines {earlier} and {number} of {path} have the same id, {loaded.record.id}. Remove one of them."
            )
        records[text] = loaded
    return records


def add_token(path: str, record: TokenRecord) -> None:
    """
    Add a record to the file, which is created with mode 0600 if there is none.

    :raises TokenFileError: it cannot be changed; then it is as it was.
    """
    with _locked(path, create=True) as file:
        data = _read(path)
        parse_tokens(data, path, {})
        if data and not data.endswith(b"\n"):
            data += b"\n"
        data += render_record(record) + b"\n"
        if len(data) > MAX_SIZE:
            raise TokenFileError(_too_large(path))
        file.replace(data)


def remove_tokens(path: str, ids: Collection[str]) -> list[TokenRecord]:
    """
    Remove the records of some ids from the file.

    :returns: the removed records.
    :raises NoSuchTokens: it does not have them all.
    :raises TokenFileError: it cannot be changed. In both cases it is as it was.
    """
    with _locked(path, create=False) as file:
        data = _read(path)
        records = parse_tokens(data, path, {})
        removed = {line: loaded.record for line, loaded in records.items() if loaded.record.id in ids}
        missing = set(ids) - {record.id for record in removed.values()}
        if missing:
            raise NoSuchTokens(path, missing)
        kept = [line for line in data.split(b"\n") if line.strip() not in removed]
        file.replace(b"\n".join(kept))
        return list(removed.values())


def _read(path: str) -> bytes:
    """
    Read the file.

    :raises TokenFileError: it cannot be read, or other users may use it.
    """
    try:
        data = read_secret_file(path, MAX_SIZE)
    except FileNotFoundError:
        raise TokenFileError(
            f"There is no file {path}. Make it with: durable-streams-server token create --file {path} --subject NAME"
        ) from None
    except OSError as error:
        raise TokenFileError(
            f"Cannot read {path}: {error.strerror}. It has to be readable by the server's user, with mode 0600."
        ) from None
    except NotAFileError:
        raise TokenFileError(f"{path} is not a file. Name a file of tokens.") from None
    except SharedFileError as error:
        raise TokenFileError(f"Other users may use {path}: its mode is {error.mode}. Run: chmod 600 {path}") from None
    if len(data) > MAX_SIZE:
        raise TokenFileDamaged(_too_large(path))
    return data


def _too_large(path: str) -> str:
    return f"{path} would be larger than {MAX_SIZE} bytes, or is. Revoke the tokens that are not in use."


@contextmanager
def _locked(path: str, create: bool) -> Iterator[LockedFile]:
    """
    Lock the file against other commands.

    :param create: whether to create it if there is none. A file that was created is removed after an error.
    :raises TokenFileError: it cannot be opened, locked or written.
    """
    try:
        with locked_file(path, create) as file:
            yield file
    except FileNotFoundError:
        raise TokenFileError(f"There is no file {path}. Name the file of tokens.") from None
    except FileNotChanged as error:
        raise TokenFileError(str(error)) from None
