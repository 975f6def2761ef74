"""docs/operations.rst, configuration.rst and proxies.rst: their commands, files and lines of the log."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, Daemon, free_port
from tests.support.shell import Shell, blocks_of

OPERATIONS: Final = blocks_of(CHECKOUT / "docs" / "operations.rst")
CONFIGURATION: Final = blocks_of(CHECKOUT / "docs" / "configuration.rst")
PROXIES: Final = blocks_of(CHECKOUT / "docs" / "proxies.rst")


def block(blocks: list[str], words: str) -> str:
    """Return the one block that has these words."""
    [found] = [each for each in blocks if words in each]
    return found


class StartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shell = Shell(
            Path(self.mktemp()).absolute(),
            variables={"DS_HTTP__CORS_ORIGINS": "https://app.example.com", "DS_AUTH__ALLOW_ANONYMOUS": "true"},
        )
        self.shell.environment |= {
            "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{free_port()}",
            "DS_STORAGE__DATA_DIR": str(self.shell.folder / "data"),
        }
        self.addCleanup(self.shell.stop)

    def test_the_check_of_the_page_prints_the_address_and_opens_nothing(self) -> None:
        printed = self.shell.run(block(OPERATIONS, "--check"))
        self.assertIn(f"Would listen on http://{self.shell.environment['DS_SERVER__BIND_ADDRESS']}", printed)
        self.assertFalse((self.shell.folder / "data").exists())

    def test_the_start_of_the_page_serves(self) -> None:
        self.shell.start(OPERATIONS[0])
        address = self.shell.environment["DS_SERVER__BIND_ADDRESS"]
        self.shell.run(
            f"python3 - <<'END'\n"
            f"import time, urllib.request\n"
            f"for attempt in range(300):\n"
            f"    try:\n"
            f"        assert urllib.request.urlopen('http://{address}/readyz').read() == b'ready'\n"
            f"        break\n"
            f"    except OSError:\n"
            f"        time.sleep(0.1)\n"
            f"else:\n"
            f"    raise SystemExit('not ready')\n"
            f"END"
        )

    def test_the_endpoint_for_systemd_is_valid(self) -> None:
        # Without a socket of systemd the check says so, in terms of this endpoint.
        ended = self.shell.attempt(f"{block(OPERATIONS, 'DS_SERVER__LISTEN')} {OPERATIONS[1]}")
        self.assertEqual(1, ended.returncode)
        self.assertIn("systemd:domain=INET:name=http", ended.stderr)

    def test_the_variables_of_opentelemetry_are_accepted(self) -> None:
        variables = block(OPERATIONS, "OTEL_").replace("\n", " ")
        printed = self.shell.run(f"{variables} DS_OBSERVABILITY__TRACES=true {OPERATIONS[1]}")
        self.assertIn("Would listen on", printed)


class LogTests(SynchronousTestCase):
    def line(self, log_format: str) -> str:
        """Return the line of the log about the request of the page."""
        with Daemon(observability__log_format=log_format) as daemon:
            daemon.request("GET", "/v1/stream/b")
            return next(line for line in daemon.log().splitlines() if "GET /v1/stream/b" in line)

    def test_the_line_of_a_failed_request_looks_like_the_one_of_the_page(self) -> None:
        expected = block(OPERATIONS, "(request ").replace("\n   ", "")
        shapes = {r"\d{4}-\S+Z": "TIME", r"\d+\.\d+ ms": "MS", r"from [\d.]+": "FROM", r"request \w+-\w+": "ID"}
        written = self.line("text")
        for pattern, name in shapes.items():
            expected, written = re.sub(pattern, name, expected), re.sub(pattern, name, written)
        self.assertEqual(expected, written)

    def test_the_json_line_begins_like_the_one_of_the_page(self) -> None:
        shown = re.sub(r"\n ", "", block(OPERATIONS, '{"time"')).replace(", ...}", "}")
        expected, written = json.loads(shown), json.loads(self.line("json"))
        self.assertEqual(list(expected), list(written)[: len(expected)])
        for name in ("level", "logger", "ds.operation"):
            self.assertEqual(expected[name], written[name])


class ConfigurationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.shell = Shell(Path(self.mktemp()).absolute())

    def test_the_settings_in_force_are_printed_as_shown(self) -> None:
        command, *lines = block(CONFIGURATION, "$ DS_LIMITS__MAX_STREAMS").splitlines()
        self.assertEqual("...", lines.pop())
        printed = self.shell.run(command.removeprefix("$ ")).splitlines()
        self.assertEqual(lines, printed[: len(lines)])

    def test_the_start_with_variables_is_valid(self) -> None:
        self.assertIn("Would listen on http://127.0.0.1:4437", self.shell.run(f"{CONFIGURATION[0]} --check"))

    def test_the_files_of_both_pages_are_valid(self) -> None:
        pages = (
            block(CONFIGURATION, "[http]"),
            PROXIES[0],
            block(PROXIES, "[proxy.identity]"),
            block(PROXIES, "[server]"),
        )
        for text in pages:
            (self.shell.folder / "page.toml").write_text(text)
            printed = self.shell.run("durable-streams-server config --config page.toml")
            self.assertEqual(len(re.findall(r"(?m)^[a-z_]+ = ", text)), printed.count("# page.toml"), text)

    def test_the_identity_header_needs_mtls_and_a_proxy_as_the_page_says(self) -> None:
        without_mtls = "[proxy]" + block(PROXIES, "[proxy.identity]").partition("[proxy]")[2]
        (self.shell.folder / "page.toml").write_text(without_mtls)
        ended = self.shell.attempt("durable-streams-server config --config page.toml")
        self.assertEqual(1, ended.returncode)
        self.assertIn("mtls", ended.stderr)
