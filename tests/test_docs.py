"""The pages of the documentation name what is in the tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from durable_streams import server
from durable_streams.server import testing, transfer

ROOT: Final = Path(__file__).resolve().parent.parent
SERVER: Final = ROOT / "durable_streams" / "server"
PAGES: Final = sorted([*ROOT.glob("*.rst"), *(ROOT / "docs").glob("*.rst"), *(ROOT / "benchmarks").glob("*.rst")])

#: Pages whose first sentence says something else.
_WITHOUT_READER: Final = frozenset({"README.rst"})

#: A module, and the names that follow it at once: ``web/live.py`` ``Tail._go_on``.
_MODULE: Final = re.compile(r"``([a-z0-9_/]+\.py)``((?:\s+``[A-Za-z_.]+``)*)")


class PageTests(SynchronousTestCase):
    def test_relative_links_point_to_existing_files(self) -> None:
        links = [
            (page, target)
            for page in PAGES
            for target in re.findall(r"`[^`<]+ <([^>\s]+)>`_", page.read_text())
            if "://" not in target
        ]
        self.assertGreater(len(links), 20)
        for page, target in links:
            self.assertTrue((page.parent / target).exists(), f"{page.name}: {target}")

    def test_each_page_begins_with_its_audience(self) -> None:
        pages = [
            page
            for page in PAGES
            if str(page.relative_to(ROOT)) not in _WITHOUT_READER and not page.read_text().startswith(".. include:: ")
        ]
        self.assertGreater(len(pages), 8)
        for page in pages:
            first = page.read_text().split("\n\n")[1]
            self.assertRegex(first.replace("\n", " "), r"^This page is for ", page.name)


class IndexTests(SynchronousTestCase):
    """``docs/index.rst`` and ``docs/api.rst``, from which Sphinx builds the documentation."""

    def test_every_page_is_in_the_index_once(self) -> None:
        listed = re.findall(r"(?m)^   (?:[A-Za-z ]+ <)?([a-z-]+)>?$", (ROOT / "docs" / "index.rst").read_text())
        pages = {path.stem for path in (ROOT / "docs").glob("*.rst")} - {"index"}
        self.assertEqual(sorted(pages), sorted(listed))

    def test_every_public_name_is_in_the_api_reference(self) -> None:
        listed = set(re.findall(r"(?m)^\.\. auto[a-z]+:: ([A-Za-z_.]+)", (ROOT / "docs" / "api.rst").read_text()))
        listed = {name.removeprefix("durable_streams.server.") for name in listed}
        # All names of these modules are listed by an automodule.
        self.assertLessEqual({"errors", "transfer"}, listed)
        listed |= {*vars(server.errors), *transfer.__all__}
        for module in (server, testing, transfer):
            self.assertEqual(set(), set(module.__all__) - listed, module.__name__)


class BlockTests(SynchronousTestCase):
    """Commands and programs of the pages are run by tests."""

    #: Pages whose blocks no test runs.
    _NOT_RUN: Final = {
        "CONTRIBUTING.rst": "its commands are those of the checks themselves",
        "docs/acid-format.rst": "a layout and a query, which the tests of the format repeat",
        "docs/archive-format.rst": "the tests of the reader repeat its commands",
        "docs/file-format.rst": "the tests of the program in it repeat its commands",
        "docs/comparison.rst": "it has directives only",
        "docs/index.rst": "it has directives only",
    }

    def test_each_page_with_blocks_is_read_by_a_test(self) -> None:
        sources = "\n".join(
            path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__).resolve()
        )
        with_blocks = {page for page in PAGES if re.search(r"(?m)::$", page.read_text())}
        self.assertGreater(len(with_blocks), 15)
        unread = {
            page.relative_to(ROOT).as_posix() for page in with_blocks if not re.search(rf'"{page.name}"', sources)
        }
        self.assertEqual(set(self._NOT_RUN), unread)


class TutorialTests(SynchronousTestCase):
    def test_the_code_on_the_page_is_that_of_the_files(self) -> None:
        folder = ROOT / "docs" / "examples" / "tutorial"
        lines = {
            line.strip() for name in ("page.ts", "produce.py") for line in (folder / name).read_text().splitlines()
        }
        page = (ROOT / "docs" / "tutorial.rst").read_text()
        shown = [
            line.strip()
            for line in re.findall(r"(?m)^    .*$", page.partition("How does the page continue?")[2])
            if line.strip() != "..."
        ]
        self.assertGreater(len(shown), 8)
        self.assertEqual([], [line for line in shown if line not in lines])


class ComparisonTests(SynchronousTestCase):
    """``comparison.rst`` rounds ratios of ``benchmarks/README.rst``."""

    #: Row of the comparison -> rows of the benchmarks.
    _ROWS: Final = {
        "appends per second, in memory": ["``writers``"],
        "durable appends per second": ["``durable-writers``", "``durable``"],
        "reads per second": ["``reads``"],
        "time from an append to 200 readers": ["``tails``, p50 in ms"],
        "appends per second, HTTP/2, TLS": ["``http2``, appends over TLS"],
        "replay of 256 MiB, MiB per second": ["``replay`` of 256 MiB, MiB/s", "the same, 4 connections"],
    }

    def test_each_ratio_is_that_of_the_benchmarks(self) -> None:
        page = (ROOT / "docs" / "comparison.rst").read_text()
        benchmarks = (ROOT / "benchmarks" / "README.rst").read_text()
        for row, names in self._ROWS.items():
            measured: list[float] = []
            for name in names:
                line = re.search(rf"(?m)^{re.escape(name)}  .*?  ((?:\d+\.\d+ ?[A-Za-z]*(?:, )?)+)$", benchmarks)
                assert line is not None, name
                measured += map(float, re.findall(r"\d+\.\d+", line[1]))
            shown = re.search(rf"(?m)^{re.escape(row)}  *(.*)$", page)
            assert shown is not None, row
            written = re.findall(r"\d+(?:\.\d+)?", shown[1])
            self.assertEqual(len(measured), len(written), row)
            for text, value in zip(sorted(written, key=float), sorted(measured), strict=True):
                self.assertEqual(float(text), round(value, len(text.partition(".")[2])), row)


class MapTests(SynchronousTestCase):
    """``one-append.rst`` is the map of the code."""

    def test_every_module_and_name_of_the_map_exists(self) -> None:
        found = _MODULE.findall((ROOT / "docs" / "one-append.rst").read_text())
        self.assertGreater(len(found), 40)
        for path, names in found:
            module = SERVER / path
            self.assertTrue(module.exists(), path)
            source = module.read_text()
            for name in re.findall(r"``([A-Za-z_.]+)``", names):
                for part in name.split("."):
                    self.assertRegex(
                        source, rf"(?m)^\s*(?:async def|def|class) {part}\b|^{part}\b.*=", f"{path}: {name}"
                    )

    def test_each_half_has_at_most_fifteen_lines(self) -> None:
        text = (ROOT / "docs" / "one-append.rst").read_text()
        for half in ("Half one", "Half two"):
            steps = text.partition(half)[2].partition("\n1. ")[2].partition("\n\n")[0]
            self.assertLessEqual(len(steps.splitlines()), 15, half)
