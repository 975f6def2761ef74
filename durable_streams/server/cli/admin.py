"""The pages for operators of a running server, which ``--url`` names."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from .errors import CommandError
from .options import Connection, with_path
from .refusals import advice_about

if TYPE_CHECKING:
    from ..client.http import Answer, HttpClient

#: The help of ``--url``.
URL_HELP: Final = (
    "Ask a running server: http://HOST:PORT of its pages for operators, with /admin/streams by default, or unix:PATH."
)

#: How long a server may be silent, in seconds.
TIMEOUT: Final = 30.0

#: The same while it makes a document or an archive: a large stream is collected in a file before it is sent.
TRANSFER_TIMEOUT: Final = 600.0

#: The same while it imports or restores: it answers when everything is stored.
STORE_TIMEOUT: Final = 86_400.0

_LIST: Final = "/streams"

#: The path of the list below a URL that has none: that of the default ``admin.base_path``.
_DEFAULT_LIST: Final = "/admin/streams"

T = TypeVar("T")

#: The largest answer to a document or an archive, in bytes: it may name 1,000 streams.
_MAX_ANSWER: Final = 4_194_304

_NOT_FOUND: Final = 404


class AdminPages:
    """
    The pages for operators of one server.

    :param url: the URL of the list of streams, or the one above it, as ``admin.base_path`` is.
    """

    def __init__(self, client: HttpClient, url: str) -> None:
        from ..client.urls import check_url  # noqa: PLC0415 (imports Twisted, which --help does not need)

        self._client = client
        self._url = check_url(url).rstrip("/")

    def page(self, name: str) -> str:
        """Return the URL of a page."""
        return f"{self._url.removesuffix(_LIST)}/{name}"

    async def get(self, name: str, query: Sequence[tuple[str, str]] = ()) -> Answer:
        """
        Ask for a page.

        :raises ClientError: it was refused, or there is no answer.
        """
        from ..client.urls import with_query  # noqa: PLC0415 (imports Twisted, which --help does not need)

        return await self._client.request("GET", with_query(self.page(name), query), timeout=TRANSFER_TIMEOUT)

    async def post(
        self, name: str, query: dict[str, str], content_type: str, body: AsyncIterable[bytes], answer_type: type[T]
    ) -> T:
        """
        Send a document or an archive to a page, and return its answer.

        :param answer_type: the type of the JSON value of the answer.
        :raises ClientError: it was refused, or there is no valid answer.
        """
        from ..client.urls import with_query  # noqa: PLC0415 (imports Twisted, which --help does not need)

        url = with_query(self.page(name), query)
        headers = {"Content-Type": content_type}
        answer = await self._client.request("POST", url, headers, body, timeout=STORE_TIMEOUT)
        return await _decoded(answer, url, answer_type)

    async def order(self, name: str, answer_type: type[T]) -> T:
        """
        Send an empty POST to a page, and return its answer.

        :param answer_type: the type of the JSON value of the answer.
        :raises ClientError: it was refused, or there is no valid answer.
        """
        url = self.page(name)
        return await _decoded(await self._client.request("POST", url), url, answer_type)

    async def list(self, query: dict[str, str], headers: dict[str, str]) -> Answer:
        """
        Ask for the list of streams, at the URL as it was given.

        :raises ClientError: it was refused, or there is no answer.
        """
        from ..client.errors import RefusedAsMissing  # noqa: PLC0415 (as above)
        from ..client.urls import with_query  # noqa: PLC0415 (as above)

        try:
            return await self._client.request("GET", with_query(self._url, query), headers)
        except RefusedAsMissing:
            if self._url.endswith(_LIST):
                raise
        return await self._client.request("GET", with_query(self.page("streams"), query), headers)


async def _decoded(answer: Answer, url: str, answer_type: type[T]) -> T:
    """
    Read the JSON value of an answer.

    :raises InvalidAnswer: it is no such value.
    """
    from ..client import InvalidAnswer  # noqa: PLC0415 (imports Twisted, which --help does not need)

    try:
        return msgspec.json.decode(await answer.body.read(_MAX_ANSWER), type=answer_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidAnswer(f"{url}: the answer is not that of the page: {error}.") from None


@asynccontextmanager
async def connected(reactor: Any, connection: Connection, label: str = "Error") -> AsyncIterator[AdminPages]:
    """
    Connect to the pages of a server until the block ends.

    :param connection: with a URL.
    :param label: the label of errors.
    :raises CommandError: for any error of the client in the block.
    :raises click.UsageError: the URL is none.
    """
    from ..client import ClientError, InvalidUse, Refusal  # noqa: PLC0415 (imports Twisted)
    from ..client.http import HttpClient  # noqa: PLC0415 (as above)

    assert connection.url is not None
    url = with_path(connection.url, _DEFAULT_LIST)
    try:
        client = HttpClient(reactor, connection.client_options(timeout=TIMEOUT))
        try:
            yield AdminPages(client, url)
        finally:
            await client.close()
    except Refusal as error:
        advice = advice_about(error, connection.token is not None, connection.cert is not None)
        if error.status == _NOT_FOUND:
            advice = (
                " Check that admin.enabled is set for the server, and the port and path of --url against "
                "admin.bind_address and admin.base_path."
            )
        raise CommandError(f"{url}: the server answered {error.status}: {error}{advice}", label) from None
    except InvalidUse as error:
        raise click.UsageError(str(error)) from None
    except ClientError as error:
        raise CommandError(str(error), label) from None
