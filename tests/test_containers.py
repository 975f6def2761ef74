"""The Dockerfile, compose.yaml and .dockerignore: what they say fits the server. No image is built here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import yaml
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.layers import load
from durable_streams.server.config.settings import Settings
from tests.support.daemon import Daemon, free_port

ROOT: Final = Path(__file__).resolve().parent.parent
COMPOSE: Final = (ROOT / "compose.yaml").read_text()

Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage of the Dockerfile, with lines joined; the first part is before any FROM."""
    text = re.sub(r"(?m)^#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", "")
    found: list[list[Instruction]] = [[]]
    for line in text.splitlines():
        if line.strip():
            name, _, argument = line.partition(" ")
            if name == "FROM":
                found.append([])
            found[-1].append((name, " ".join(argument.split())))
    return found


def last(name: str) -> str:
    """Return the argument of an instruction that the last stage has once."""
    [argument] = [argument for found, argument in stages()[-1] if found == name]
    return argument


def variables() -> dict[str, str]:
    """Return the variables that the image sets."""
    return dict(pair.split("=", 1) for pair in last("ENV").split(" "))


def settings_of(environment: dict[str, str]) -> Settings:
    """Load the settings that variables make, without warnings about anything but CORS and an open server."""
    settings = {name: value for name, value in environment.items() if name.startswith("DS_")}
    with tempfile.TemporaryDirectory() as empty:
        loaded = load(None, None, settings, empty)
    known = {"http.cors_origins is *", "server.bind_address is"}
    assert {warning[:22] for warning in loaded.warnings} <= known, loaded.warnings
    return Settings.of(loaded.settings)


class ImageTests(SynchronousTestCase):
    def test_compilers_and_sources_stay_in_earlier_stages(self) -> None:
        before, *built = stages()
        self.assertEqual([("ARG", "PYTHON_IMAGE=python:3.13-slim-bookworm")], before)
        self.assertEqual({"${PYTHON_IMAGE}"}, {stage[0][1].split(" ")[0] for stage in built})
        copied = [argument for name, argument in built[-1] if name == "COPY"]
        self.assertEqual(["--from=environment /opt/durable-streams /opt/durable-streams"], copied)
        self.assertFalse([argument for name, argument in built[-1] if re.search(r"curl|wget|apt-get|pip", argument)])

    def test_each_copied_source_exists_and_is_in_the_context(self) -> None:
        patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
        self.assertEqual("*", patterns[0])
        included = {pattern[1:] for pattern in patterns if pattern[0] == "!"}
        sources = {
            source
            for stage in stages()
            for name, argument in stage
            if name == "COPY" and not argument.startswith("--from=")
            for source in argument.split(" ")[:-1]
        }
        self.assertEqual(included, sources)
        for source in sources:
            self.assertTrue((ROOT / source).exists(), source)
            self.assertFalse([pattern for pattern in patterns[1:] if pattern[0] != "!" and fnmatch(source, pattern)])

    def test_the_server_is_not_root_and_owns_only_its_data(self) -> None:
        self.assertEqual("4437:4437", last("USER"))
        names = [name for name, _ in stages()[-1]]
        self.assertLess(names.index("USER"), names.index("ENTRYPOINT"))
        self.assertIn("install --directory --owner 4437 --group 4437 --mode 0700 /var/lib/durable-streams", last("RUN"))

    def test_the_variables_fit_the_volume_and_the_port(self) -> None:
        settings = settings_of(variables())
        self.assertEqual("file-durable", settings.storage.mode)
        self.assertEqual([settings.storage.data_dir], json.loads(last("VOLUME")))
        self.assertEqual(f"0.0.0.0:{last('EXPOSE')}", settings.server.bind_address)
        self.assertEqual(f"http://127.0.0.1:{last('EXPOSE')}/readyz", variables()["HEALTH_URL"])
        page = (ROOT / "docs" / "containers.rst").read_text()
        for name, value in variables().items():
            if name.startswith(("DS_", "HEALTH")):
                self.assertRegex(page, rf"(?m)^``{name}`` +``{re.escape(value)}``")

    def test_the_entry_point_gets_signals_and_serves_with_the_variables(self) -> None:
        self.assertEqual("SIGTERM", last("STOPSIGNAL"))
        program, *arguments = json.loads(last("ENTRYPOINT"))
        self.assertEqual("twistd", program)

        class ContainerDaemon(Daemon):
            command = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", *arguments)

        with ContainerDaemon(storage__mode=variables()["DS_STORAGE__MODE"], storage__data_dir="data") as daemon:
            daemon.create("a", body=b"x")
            self.assertEqual(0, daemon.stop(), daemon.log())

    def test_the_health_check_succeeds_only_while_the_server_is_ready(self) -> None:
        options, _, command = last("HEALTHCHECK").partition(" CMD ")
        self.assertIn("--start-period=", options)
        program, *arguments = json.loads(command)
        self.assertEqual("python3", program)

        def check(port: int) -> int:
            environment = {"HEALTH_URL": variables()["HEALTH_URL"].replace(last("EXPOSE"), str(port))}
            done = subprocess.run(
                [sys.executable, *arguments], env=environment, capture_output=True, timeout=30, check=False
            )
            return done.returncode

        with Daemon() as daemon:
            self.assertEqual(0, check(daemon.port))
            daemon.stop()
            self.assertEqual(1, check(daemon.port))
        self.assertEqual(1, check(free_port()))


class ComposeTests(SynchronousTestCase):
    def one(self, pattern: str) -> str:
        found = re.findall(pattern, COMPOSE, re.M)
        self.assertEqual(1, len(found), pattern)
        return str(found[0])

    def test_the_settings_are_valid(self) -> None:
        environment = dict(re.findall(r'(?m)^      (DS_[A-Z_]+): "?([^"\n]+)"?$', COMPOSE))
        self.assertEqual(re.sub(r"(?m)^ *# .*\n", "", COMPOSE).count("DS_"), len(environment))
        settings = settings_of(variables() | environment)
        self.assertNotIn("*", settings.http.cors_origins)
        # The port is published on this machine only: that the server is open is meant, and explained there.
        self.assertEqual("true", environment["DS_AUTH__ALLOW_ANONYMOUS"])

    def test_the_settings_for_tokens_are_valid_in_the_place_of_the_open_server(self) -> None:
        text = COMPOSE.replace('      DS_AUTH__ALLOW_ANONYMOUS: "true"\n', "")
        with_tokens = re.sub(r"(?m)^(      )# (DS_|  allow|- )", r"\1\2", text)
        service = yaml.safe_load(with_tokens)["services"]["streams"]
        with tempfile.TemporaryDirectory() as empty:
            auth = load(None, None, variables() | service["environment"], empty).settings.auth
        self.assertEqual((("token",), False), (auth.methods, auth.allow_anonymous))
        self.assertEqual(("allow authenticated all **",), auth.rules)
        self.assertIn(f"./secrets:{Path(str(auth.token_file)).parent}:ro", service["volumes"])

    def test_the_port_is_published_on_this_machine_only(self) -> None:
        self.assertEqual(f"127.0.0.1:4437:{last('EXPOSE')}", self.one(r'^      - "([0-9.:]+)"$'))

    def test_the_volume_is_where_the_data_is(self) -> None:
        self.assertEqual(json.loads(last("VOLUME")), [self.one(r"^      - streams:(.*)$")])

    def test_stopping_has_time_to_drain_and_to_close_the_storage(self) -> None:
        self.assertGreater(
            int(self.one(r"^    stop_grace_period: (\d+)s$")), Settings().transport.connection.drain_timeout_secs
        )
        self.assertIn("--stop-timeout 90", (ROOT / "docs" / "containers.rst").read_text())

    def test_the_limit_of_files_allows_for_max_connections(self) -> None:
        self.assertGreater(int(self.one(r"^      nofile: (\d+)$")), Settings().limits.max_connections)

    def test_the_container_has_no_privileges_and_a_read_only_file_system(self) -> None:
        for line in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
            self.assertIn(f"\n    {line}\n", COMPOSE)
