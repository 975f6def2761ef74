"""docs/monitoring.rst: its commands work, and alerts and dashboard ask for metrics that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.daemon.workers.metrics import combine
from durable_streams.server.model import DatabaseFigures
from durable_streams.server.telemetry.metrics import database_metrics
from tests.support.daemon import CHECKOUT, Daemon, free_port
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

PAGE: Final = CHECKOUT / "docs" / "monitoring.rst"
DASHBOARD: Final = CHECKOUT / "etc" / "grafana-dashboard.json"
ALERTS: Final = CHECKOUT / "etc" / "prometheus-alerts.yaml"

#: A metric in a query, with the labels that select its samples.
_SELECTOR: Final = re.compile(r"\b((?:durable_streams|process)_[a-z_]+)(?:\{([^}]*)\})?")
_LABEL: Final = re.compile(r'([a-z_]+)(?:=~|!=|!~|=)"')
#: The labels by which a query groups.
_GROUPS: Final = re.compile(r"\bby \(([a-z, ]+)\)")
#: The labels that Prometheus adds to each sample.
_ADDED: Final = frozenset({"job", "instance"})


def labels_by_metric(text: str) -> dict[str, set[str]]:
    """Map the name of each sample to the labels that its samples have."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> Iterator[dict[str, Any]]:
    """Yield the panels of the dashboard."""
    yield from json.loads(DASHBOARD.read_text())["panels"]


def dashboard_queries() -> list[str]:
    """Return the queries of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alerts() -> dict[str, str]:
    """Return the queries of the alerts by name; a query may be folded over two lines."""
    found = re.findall(r"- alert: (\w+)\n(?:\s+#.*\n)?\s+expr: (?:>\n\s+)?(.+)\n", ALERTS.read_text())
    return dict(found)


class FileTests(SynchronousTestCase):
    """The files of ``etc`` against the metrics of a running server."""

    def metrics(self) -> dict[str, set[str]]:
        """Return the metrics of a server that has answered requests."""
        rules = Path(self.mktemp()).absolute()
        rules.write_text("allow anyone all **\n")
        audit = Path(self.mktemp()).absolute()
        with Daemon(storage__mode="file-durable", auth__rules_file=rules, audit__file=audit) as daemon:
            daemon.create("a")
            daemon.append("a", b"x")
            metrics = labels_by_metric(daemon.request("GET", "/metrics")[2].decode())
        for family in database_metrics(DatabaseFigures()):
            metrics |= {sample.name: set(sample.labels) for sample in family.samples}
        return metrics | labels_by_metric(combine({1: ""}, {1: 0}))

    def test_each_query_asks_for_metrics_and_labels_that_exist(self) -> None:
        metrics = self.metrics()
        queries = [*dashboard_queries(), *alerts().values(), blocks_of(PAGE)[-1]]
        self.assertGreater(len(queries), 40)
        for query in queries:
            selected = _SELECTOR.findall(query)
            self.assertTrue(selected or query.startswith("up{"), query)
            for name, selector in selected:
                self.assertIn(name, metrics, query)
                labels = {*_LABEL.findall(selector)}
                for group in _GROUPS.findall(query):
                    labels |= set(group.split(", "))
                self.assertEqual(set(), labels - metrics[name] - _ADDED, query)

    def test_the_queries_of_the_dashboard_choose_the_job_and_the_instance(self) -> None:
        for query in dashboard_queries():
            for name, selector in _SELECTOR.findall(query):
                self.assertTrue(selector.startswith('job="$job", instance=~"$instance"'), f"{name}: {query}")

    def test_the_panels_do_not_overlap(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in panels():
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            self.assertEqual(set(), cells & taken, panel["title"])
            taken |= cells
        self.assertEqual(len(list(panels())), len({panel["id"] for panel in panels()}))

    def test_the_page_lists_each_alert(self) -> None:
        listed = re.findall(r"(?m)^``(Streams\w+)``", PAGE.read_text())
        self.assertEqual(list(alerts()), listed)
        self.assertEqual(ALERTS.read_text().count("- alert:"), len(listed))


class PageTests(SynchronousTestCase):
    def test_the_commands_of_the_page_print_what_it_says(self) -> None:
        program("curl")
        public, private = str(free_port()), str(free_port())
        shell = Shell(Path(self.mktemp()).absolute(), {"127.0.0.1:4437": f"127.0.0.1:{public}", "4438": private})
        self.addCleanup(shell.stop)
        start, look, printed, _, _, probes, _ = blocks_of(PAGE)
        shell.start(start)
        shell.run(
            "curl -sS --retry 60 --retry-all-errors --retry-delay 1 --fail http://127.0.0.1:4438/readyz 2>/dev/null"
        )
        self.assertEqual(printed, shell.run(look).strip())
        self.assertEqual("okready", re.sub(r"\s", "", shell.run(probes)))
        # Neither metrics nor the pages for operators are beside the streams.
        self.assertIn(" 404 ", shell.run("curl -sSi http://127.0.0.1:4437/metrics"))
