"""docs/errors.rst lists exactly the problems of the server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server import errors
from durable_streams.server.web.problems import CATALOGUE, problem

PAGE: Final = (Path(__file__).resolve().parents[2] / "docs" / "errors.rst").read_text()

#: A row: status, code, exceptions, when, what to do.
_ROW: Final = re.compile(
    r"""
    ^\ {3}\*\ -\ (\d{3})\n
    \ {5}-\ ``([A-Z_]+)``\n
    (?:\n\ {7}((?:``\w+``(?:,\ )?)+)\n)?
    \ {5}-\ ((?:.+\n)(?:\ {7}.+\n)*)
    \ {5}-\ ((?:.+\n)(?:\ {7}.+\n)*)
    """,
    re.X | re.M,
)


class PageTests(SynchronousTestCase):
    rows = _ROW.findall(PAGE)

    def test_each_code_is_listed_once_with_its_status(self) -> None:
        listed = [(int(status), code) for status, code, *_ in self.rows]
        known = {(status, code) for status, code, _ in CATALOGUE.values()}
        self.assertEqual(sorted(known), sorted(listed), "add the code to the table of docs/errors.rst")
        self.assertEqual([status for status, _ in listed], sorted(status for status, _ in listed))

    def test_each_exception_of_embedding_programs_is_listed_at_its_code(self) -> None:
        listed = {(name, code) for _, code, names, *_ in self.rows for name in re.findall(r"\w+", names)}
        known = {
            (kind.__name__, code) for kind, (_, code, _) in CATALOGUE.items() if kind.__module__ == errors.__name__
        }
        self.assertEqual(known, listed)

    def test_each_code_has_a_reason_and_an_advice(self) -> None:
        for _, code, _, when, advice in self.rows:
            self.assertRegex(when.rstrip(), r"\.$", code)
            self.assertRegex(advice.rstrip(), r"\.$", code)

    def test_the_example_is_what_the_server_answers(self) -> None:
        status, lines, body, _ = problem(errors.StreamNotFound("demo/chat"), "/v1/stream/demo/chat")
        self.assertIn(f"    HTTP/1.1 {status} Not Found\n    {lines.decode().strip()}\n", PAGE)
        example = re.search(r"(?m)^    (\{.*\n(?:     .*\n)*)", PAGE)
        assert example is not None
        self.assertEqual(body.decode(), re.sub(r"\n +", "", example[1]).strip())
