"""What the commands for streams share: which stream is meant, a client for its server, and errors as sentences."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from .errors import CommandError
from .options import Connection, connection_options, with_path
from .refusals import advice_about
from .running import run

if TYPE_CHECKING:
    from ..client import ClientError, StreamClient, StreamInfo

T = TypeVar("T")

#: The path of streams below a URL that has none.
_STREAMS: Final = "/v1/stream"

#: The options of a connection, for commands whose argument is a stream.
stream_options = connection_options(
    "Where the streams are that are given by name: http://HOST:PORT, with /v1/stream by default, or unix:PATH. Also "
    "read from DS_URL."
)

stream_argument = click.argument("stream", metavar="STREAM")

begin_option = click.option(
    "--from",
    "begin",
    metavar="OFFSET|start|now",
    default="start",
    show_default=True,
    help="Where to begin: the start, the tail, or an offset that the server has answered.",
)

retry_option = click.option(
    "--retry-for",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long to try again while the server cannot be reached. If it is given, this includes the first request.",
)


def lifetime_options(command: Callable[..., T]) -> Callable[..., T]:
    """Add ``--ttl`` and ``--expires-at``, which exclude each other."""

    @functools.wraps(command)
    def checked(ttl: int | None, expires_at: str | None, **others: Any) -> T:
        if ttl is not None and expires_at is not None:
            raise click.UsageError("--ttl and --expires-at were both given. Give one.")
        return command(ttl=ttl, expires_at=expires_at, **others)

    expiry = click.option("--expires-at", metavar="TIME", help="Expire at this time, such as 2030-01-31T12:00:00Z.")
    ttl = click.option(
        "--ttl", type=click.IntRange(min=0), metavar="SECONDS", help="Expire after so long without a use."
    )
    return ttl(expiry(checked))


def stream_url(connection: Connection, stream: str) -> str:
    """
    Return the URL of a stream that is given by URL or by name.

    :raises click.UsageError: it is a name without a server, or a URL of another server than the one of the token.
    """
    from ..client import InvalidUse  # noqa: PLC0415 (imports Twisted, which --help does not need)
    from ..client.urls import check_url, origin_of  # noqa: PLC0415 (as above)
    from ..client.urls import stream_url as url_of  # noqa: PLC0415 (as above)

    try:
        if "://" not in stream:
            if connection.url is None:
                raise click.UsageError(
                    f"{stream} is the name of a stream. Give the URL of its server by --url or DS_URL, such as "
                    "http://localhost:4437, or the stream's own URL."
                )
            return url_of(base_url(connection.url), stream)
        url = check_url(stream)
        if connection.url is not None and connection.token is not None:
            base = check_url(base_url(connection.url))
            if origin_of(base) != origin_of(url):
                raise click.UsageError(
                    f"{stream} is not on the server of --url (DS_URL), which the token is for. Leave the URL out if "
                    "the token is for both."
                )
    except InvalidUse as error:
        raise click.UsageError(str(error)) from None
    return url


def base_url(url: str) -> str:
    """
    Return the URL below which the streams are.

    :raises click.UsageError: it has no scheme.
    """
    return with_path(url, _STREAMS)


@asynccontextmanager
async def connected(reactor: Any, connection: Connection, kept_connections: int = 2) -> AsyncIterator[StreamClient]:
    """
    Make a client, and close its connections at the end.

    :param kept_connections: how many idle connections are kept for further requests.
    """
    from ..client import StreamClient  # noqa: PLC0415 (imports Twisted, which --help does not need)

    client = StreamClient(reactor, connection.client_options(kept_connections=kept_connections))
    try:
        yield client
    finally:
        await client.disconnect()


def perform(connection: Connection, work: Callable[[StreamClient], Coroutine[Any, Any, T]]) -> T:
    """
    Run a command's requests, and return what they return.

    If nobody reads the standard output any more, the command ends without an error.

    :raises CommandError: a request failed.
    :raises click.UsageError: a value cannot be sent.
    """
    from ..client import ClientError, InvalidUse  # noqa: PLC0415 (imports Twisted, which --help does not need)

    async def connect_and_work(reactor: Any) -> T:
        async with connected(reactor, connection) as client:
            return await work(client)

    try:
        return run(connect_and_work)
    except InvalidUse as error:
        raise click.UsageError(str(error)) from None
    except ClientError as error:
        raise CommandError(sentence(error, connection)) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(0) from None


async def first_head(client: StreamClient, url: str, retry_for: float) -> StreamInfo:
    """
    Return the metadata of a stream, by the first request of a command.

    :param retry_for: how long to try again if the server cannot be reached, in seconds.
    """
    from ..client import ClientError  # noqa: PLC0415 (imports Twisted, which --help does not need)
    from ..client.backoff import Backoff  # noqa: PLC0415 (as above)

    backoff = Backoff(client.http.reactor, retry_for)
    while True:
        try:
            return await client.head(url)
        except ClientError as error:
            await backoff.wait(error)


def sentence(error: ClientError, connection: Connection | None = None) -> str:
    """
    Return an error's message; a server's with its status and code, to look up.

    :param connection: what the request was sent with, for advice about refusals; None for no advice.
    """
    from ..client import Refusal  # noqa: PLC0415 (imports Twisted, which --help does not need)

    if isinstance(error, Refusal):
        code = f" {error.code}" if error.code else ""
        advice = ""
        if connection is not None:
            advice = advice_about(error, connection.token is not None, connection.cert is not None)
        return f"{error} ({error.status}{code}){advice}"
    return str(error)
