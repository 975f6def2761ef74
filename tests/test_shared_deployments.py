"""The samples for several servers on one database: valid by the schemas, and what they say fits the server."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.layers import load
from durable_streams.server.config.settings import Settings
from durable_streams.server.identity.policy import parse_rules
from tests.support.programs import program

ETC: Final = Path(__file__).resolve().parent.parent / "etc"
COMPOSE: Final = ETC / "compose.postgres.yaml"
KUBERNETES: Final = ETC / "kubernetes.yaml"
HAPROXY: Final = ETC / "haproxy-nodes.cfg"


def settings_of(environment: dict[str, str]) -> tuple[Settings, list[str]]:
    """Load the settings that variables make, and the warnings."""
    settings = {name: value for name, value in environment.items() if name.startswith("DS_")}
    with tempfile.TemporaryDirectory() as empty:
        loaded = load(None, None, settings, empty)
    return Settings.of(loaded.settings), list(loaded.warnings)


def validated(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=120, check=False, cwd="/"
    )


class ComposeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
        self.services: dict[str, Any] = self.file["services"]
        self.nodes = [service for name, service in self.services.items() if name.startswith("node")]

    def test_the_file_is_valid_by_the_schema_of_compose(self) -> None:
        arguments = ("check_jsonschema", "--builtin-schema", "vendor.compose-spec")
        done = validated(*arguments, str(COMPOSE))
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as wrong:
            wrong.write(COMPOSE.read_text().replace("cap_drop: [ALL]", "cap_drop: ALL"))
            wrong.flush()
            self.assertEqual(1, validated(*arguments, wrong.name).returncode)

    def test_the_settings_of_the_nodes_are_valid_and_name_the_database(self) -> None:
        self.assertEqual(2, len(self.nodes))
        for node in self.nodes:
            environment = dict(node["environment"])
            dsn = environment["DS_STORAGE__POSTGRES__DSN"].replace("${DATABASE_PASSWORD:?set a password}", "secret")
            settings, warnings = settings_of(environment | {"DS_STORAGE__POSTGRES__DSN": dsn})
            self.assertEqual([], warnings)
            self.assertEqual("postgres", settings.storage.mode)
            database = self.services["database"]["environment"]
            expected = f"postgresql://{database['POSTGRES_USER']}:secret@database/{database['POSTGRES_DB']}"
            self.assertEqual(expected, settings.storage.postgres.dsn)
            self.assertEqual(environment["DS_STORAGE__POSTGRES__DSN"].count(database["POSTGRES_PASSWORD"]), 1)

    def test_only_the_proxy_is_published_and_its_address_is_trusted(self) -> None:
        self.assertEqual(["proxy"], [name for name, service in self.services.items() if "ports" in service])
        address = self.services["proxy"]["networks"]["streams"]["ipv4_address"]
        for node in self.nodes:
            self.assertEqual(address, node["environment"]["DS_PROXY__TRUSTED_PROXIES"])

    def test_stopping_has_time_to_drain(self) -> None:
        for node in self.nodes:
            seconds = int(node["stop_grace_period"].removesuffix("s"))
            self.assertGreater(seconds, Settings().transport.connection.drain_timeout_secs)


class HaproxyTests(SynchronousTestCase):
    def test_haproxy_accepts_the_configuration(self) -> None:
        haproxy = program("haproxy")
        done = subprocess.run(
            [haproxy, "-c", "-f", str(HAPROXY)], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)

    def test_its_servers_are_the_nodes_of_the_compose_file(self) -> None:
        nodes = [name for name in yaml.safe_load(COMPOSE.read_text())["services"] if name.startswith("node")]
        for node in nodes:
            self.assertIn(f"    server {node} {node}:4437\n", HAPROXY.read_text())

    def test_its_timeouts_are_longer_than_the_silence_of_tails(self) -> None:
        connection = Settings().transport.connection
        self.assertIn("    timeout server 75s\n", HAPROXY.read_text())
        self.assertLess(connection.long_poll_timeout_secs, 75)


class KubernetesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.resources: dict[str, Any] = {
            resource["kind"]: resource for resource in yaml.safe_load_all(KUBERNETES.read_text())
        }
        self.pod = self.resources["Deployment"]["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]

    def test_the_manifest_is_valid_by_the_schemas_of_kubernetes(self) -> None:
        done = validated("kubernetes_validate", "--strict", str(KUBERNETES))
        self.assertEqual(0, done.returncode, done.stdout + done.stderr)
        self.assertEqual(6, (done.stdout + done.stderr).count(" passed for resource "))
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as wrong:
            wrong.write(KUBERNETES.read_text().replace("replicas: 3", "replicas: three"))
            wrong.flush()
            self.assertNotEqual(0, validated("kubernetes_validate", "--strict", wrong.name).returncode)

    def test_the_settings_are_valid(self) -> None:
        dsn = self.resources["Secret"]["stringData"]["dsn"]
        environment = self.resources["ConfigMap"]["data"] | {"DS_STORAGE__POSTGRES__DSN": dsn}
        settings, warnings = settings_of(environment)
        self.assertEqual(("postgres", dsn), (settings.storage.mode, settings.storage.postgres.dsn))
        # TLS ends at the ingress.
        [warning] = warnings
        self.assertIn("auth.methods has token, and server.bind_address is '0.0.0.0:4437', without TLS", warning)
        (variable,) = self.container["env"]
        reference = variable["valueFrom"]["secretKeyRef"]
        self.assertEqual("DS_STORAGE__POSTGRES__DSN", variable["name"])
        self.assertEqual((self.resources["Secret"]["metadata"]["name"], "dsn"), (reference["name"], reference["key"]))

    def test_the_tokens_are_in_a_mounted_secret_and_the_rules_can_be_read(self) -> None:
        data = self.resources["ConfigMap"]["data"]
        (mount,) = [each for each in self.container["volumeMounts"] if each["name"] == "tokens"]
        (volume,) = [each for each in self.pod["volumes"] if each["name"] == "tokens"]
        self.assertEqual(f"{mount['mountPath']}/tokens", data["DS_AUTH__TOKEN_FILE"])
        self.assertEqual("durable-streams-tokens", volume["secret"]["secretName"])
        page = (ETC.parent / "docs" / "containers.rst").read_text()
        self.assertIn("kubectl create secret generic durable-streams-tokens --from-file tokens", page)
        self.assertEqual(self.pod["securityContext"]["runAsGroup"], self.pod["securityContext"]["fsGroup"])
        self.assertEqual(2, len(parse_rules(data["DS_AUTH__RULES"].splitlines(), "auth.rules").rules))

    def test_the_selectors_find_the_pods(self) -> None:
        labels = self.resources["Deployment"]["spec"]["template"]["metadata"]["labels"]
        for selected in (
            self.resources["Deployment"]["spec"]["selector"]["matchLabels"],
            self.resources["Service"]["spec"]["selector"],
            self.resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            self.resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ):
            self.assertEqual(labels, selected)

    def test_stopping_has_time_to_drain(self) -> None:
        pause = int(self.container["lifecycle"]["preStop"]["exec"]["command"][1])
        drain = Settings().transport.connection.drain_timeout_secs
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], drain + pause)

    def test_the_probes_ask_for_what_they_are_for(self) -> None:
        paths = {name: self.container[name]["httpGet"]["path"] for name in self.container if name.endswith("Probe")}
        self.assertEqual({"livenessProbe": "/healthz", "readinessProbe": "/readyz", "startupProbe": "/readyz"}, paths)

    def test_the_user_is_that_of_the_image(self) -> None:
        dockerfile = (ETC.parent / "Dockerfile").read_text()
        context = self.pod["securityContext"]
        self.assertIn(f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n", dockerfile)
        self.assertIn("'durable-streams-server[otel,postgres]'", dockerfile)
