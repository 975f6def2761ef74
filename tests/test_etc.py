"""Tests of the samples in ``etc`` and the settings reference: both are correct; the samples load and are shipped."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.conversion import KINDS
from durable_streams.server.config.layers import PROFILES, load, read_layers
from durable_streams.server.config.meanings import MEANINGS
from durable_streams.server.config.sections import value_of
from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError
from tests.support.programs import program
from tests.support.skipping import skip_not_installed

ROOT: Final = Path(__file__).resolve().parent.parent
ETC: Final = ROOT / "etc"

ORIGINS: Final = {"DS_HTTP__CORS_ORIGINS": "https://app.example.com"}
FILES: Final = {
    f"DS_TRANSPORT__TLS__{name}": f"/etc/durable-streams/tls/{file}.pem"
    for name, file in (("CERT_PATH", "cert"), ("KEY_PATH", "key"), ("CLIENT_CA_PATH", "clients"))
}
AUTH: Final = {
    "DS_AUTH__METHODS": "token",
    "DS_AUTH__TOKEN_FILE": "/etc/durable-streams/tokens",
    "DS_AUTH__RULES": "allow authenticated all **",
}

#: What each sample needs before a server starts with it.
NEEDED: Final[dict[str, dict[str, str]]] = {
    "default": {},
    "dev": {},
    "prod": {**ORIGINS, **AUTH},
    "prod-tls": {**ORIGINS, **AUTH, **dict(list(FILES.items())[:2])},
    "prod-mtls": {**ORIGINS, **FILES},
}


def commented(text: str) -> Iterator[tuple[str, str]]:
    """Find the settings that are comments, with what stands for their values."""
    group = ""
    for line in text.splitlines():
        if header := re.fullmatch(r"\[([a-z_.]+)\]", line):
            group = header[1]
        elif setting := re.fullmatch(r"#([a-z_]+) =(.*)", line):
            yield f"{group}.{setting[1]}", setting[2].strip()


class SampleTests(SynchronousTestCase):
    def test_each_profile_has_a_sample_file(self) -> None:
        self.assertEqual(set(PROFILES), {path.stem for path in ETC.glob("*.toml")})
        self.assertEqual(set(PROFILES), set(NEEDED))

    def test_the_whole_folder_serves_every_profile(self) -> None:
        for profile, environment in NEEDED.items():
            loaded = load(profile, None, environment, str(ETC))
            of_default = ["http.cors_origins is *", "server.bind_address is"]
            warned = {"default": of_default, "dev": []}.get(profile, ["http.public_url is not"])
            self.assertEqual(warned, [text[:22] for text in loaded.warnings])
            for name in environment:
                without = {other: value for other, value in environment.items() if other != name}
                self.assertRaises(ConfigError, load, profile, None, without, str(ETC))

    def test_each_prod_sample_equals_its_built_in_profile(self) -> None:
        for profile in ("prod", "prod-tls", "prod-mtls"):
            given = load(None, str(ETC / f"{profile}.toml"), NEEDED[profile], self.empty()).settings
            self.assertEqual(load(profile, None, NEEDED[profile], str(ETC)).settings, given)

    def test_a_sample_is_valid_once_its_marked_lines_are_set(self) -> None:
        for profile in NEEDED:
            text = (ETC / f"{profile}.toml").read_text()
            edited = Path(self.mktemp())
            edited.write_text(re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", text))
            loaded = load(profile, str(edited), {}, str(ETC))
            self.assertEqual(load(profile, None, NEEDED[profile], str(ETC)).settings, loaded.settings)
            self.assertEqual(bool(NEEDED[profile]), "EDIT" in text)

    def test_samples_keep_the_values_of_their_profiles(self) -> None:
        for profile, values in PROFILES.items():
            loaded = read_layers(profile, None, NEEDED[profile], str(ETC)).settings
            for name, value in values.items():
                if name != "server.bind_address":
                    self.assertEqual(value, value_of(loaded, name))

    def test_default_toml_lists_all_settings_with_their_defaults_and_sets_none(self) -> None:
        text = (ETC / "default.toml").read_text()
        found = dict(commented(text))
        self.assertEqual(list(KINDS), [name for name, _ in commented(text)])
        for name in KINDS:
            default: Any = value_of(Settings(), name)
            if default is None:
                self.assertEqual("", found[name])
            else:
                value = tomllib.loads(f"x = {found[name]}")["x"]
                self.assertEqual(default, tuple(value) if isinstance(value, list) else value)
        self.assertEqual({}, read_layers(None, str(ETC / "default.toml"), {}, self.empty()).sources)

    def test_default_toml_is_valid_when_uncommented(self) -> None:
        text = re.sub(r"(?m)^#([a-z_]+ = )", r"\1", (ETC / "default.toml").read_text())
        edited = Path(self.mktemp())
        edited.write_text(text)
        loaded = load(None, str(edited), {}, self.empty())
        self.assertEqual(Settings(), Settings.of(loaded.settings))
        self.assertEqual({name for name in KINDS if value_of(Settings(), name) is not None}, set(loaded.sources))

    def empty(self) -> str:
        folder = Path(self.mktemp())
        folder.mkdir()
        return str(folder)


class GeneratedTests(SynchronousTestCase):
    def test_the_reference_and_default_toml_are_what_the_settings_generate(self) -> None:
        for path, text in runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated"]():
            self.assertEqual(text, path.read_text(), "run docs/generate.py")

    def test_each_setting_has_a_meaning(self) -> None:
        self.assertEqual(list(KINDS), list(MEANINGS))
        for name, meaning in MEANINGS.items():
            self.assertRegex(meaning, r"^\S.*[^.\s]$", name)


class UnitTests(SynchronousTestCase):
    text = (ETC / "durable-streams.service").read_text()

    def test_the_unit_allows_for_the_drain_timeout_and_max_connections(self) -> None:
        stop = re.search(r"(?m)^TimeoutStopSec=(\d+)$", self.text)
        files = re.search(r"(?m)^LimitNOFILE=(\d+)$", self.text)
        assert stop is not None
        assert files is not None
        self.assertGreater(int(stop[1]), Settings().transport.connection.drain_timeout_secs)
        self.assertGreater(int(files[1]), Settings().limits.max_connections)

    def test_the_unit_uses_the_servers_default_paths(self) -> None:
        self.assertIn("\nStateDirectory=durable-streams\n", self.text)
        self.assertEqual("/var/lib/durable-streams", PROFILES["prod"]["storage.data_dir"])

    def test_systemd_verifies_the_unit(self) -> None:
        analyze = program("systemd-analyze")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        unit = folder / "durable-streams.service"
        # It looks for the programs, and this machine has them elsewhere.
        unit.write_text(self.text.replace("/opt/durable-streams/bin/twistd", sys.executable))
        done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual((0, ""), (done.returncode, done.stdout + done.stderr))


class SocketUnitTests(SynchronousTestCase):
    text = (ETC / "durable-streams.socket").read_text()

    def test_the_documented_endpoint_uses_the_socket_of_the_unit(self) -> None:
        name = re.search(r"(?m)^FileDescriptorName=(\w+)$", self.text)
        assert name is not None
        self.assertIn(f"#     DS_SERVER__LISTEN=systemd:domain=INET:name={name[1]}\n", self.text)

    def test_the_socket_unit_lets_the_server_accept_connections(self) -> None:
        self.assertIn("\nAccept=no\n", self.text)
        self.assertIn("\nListenStream=127.0.0.1:4437\n", self.text)


class SourceDistributionTests(SynchronousTestCase):
    def test_the_source_distribution_has_the_samples(self) -> None:
        if find_spec("setuptools") is None:
            skip_not_installed("setuptools", "pip install setuptools")
        copy, out = Path(self.mktemp()), Path(self.mktemp()).absolute()
        shutil.copytree(
            ROOT,
            copy,
            ignore=shutil.ignore_patterns(".*", "_trial_temp*", "node_modules", "tests", "benchmarks", "*.egg-info"),
        )
        done = subprocess.run(
            [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "sdist", "-d", str(out)],
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        [path] = out.iterdir()
        with tarfile.open(path) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        expected = {path.relative_to(ROOT).as_posix() for path in ETC.rglob("*") if path.is_file()}
        self.assertTrue(expected, ETC)
        self.assertEqual(set(), expected - names)
