"""Runs the commands of the page about the identities of client certificates, after those of the page about TLS."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.daemon import CHECKOUT, PATIENCE
from tests.support.shell import blocks_of

from . import test_tls_page


class CertificatesPageTests(test_tls_page.PageCase):
    def test_every_command_of_the_page_works_and_rules_decide_by_the_certificate(self) -> None:
        before = self.blocks
        names, second, rules, ask, start, use, lock_out = blocks_of(CHECKOUT / "docs" / "client-certificates.rst")
        self.shell.run("\n".join(before[:3]))
        self.shell.run(before[3])
        self.assertIn("subject=CN=reporter", self.shell.run(names))
        self.shell.run(second)
        self.shell.run(rules)
        told = self.shell.run(ask)
        self.assertIn("allow", told)
        self.addCleanup(self.shell.stop_daemon)
        self.shell.run(start)
        self.wait_until_it_listens()
        answers = self.shell.run(use)
        self.assertEqual(answers.count("all is well"), 1)
        self.assertEqual(answers.count('"status":403'), 2)
        prepare, _, _ = use.partition("$reporter")
        read = prepare + "$dashboard -o /dev/null -w '%{http_code}' $streams/reports/today"
        self.assertEqual(self.shell.run(read), "200")
        self.addCleanup(self.shell.stop)
        self.shell.start(prepare + '$dashboard -N "$streams/reports/today?offset=-1&live=sse"; echo "ended with $?"')
        self.wait_for(lambda: "all is well" in self.shell.output())
        self.shell.run(lock_out)
        self.wait_for(lambda: self.shell.run(read) == "403")
        self.wait_for(lambda: "ended with 0" in self.shell.output())
        self.assertNotIn("Traceback", (self.folder / "twistd.log").read_text())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, self.shell.output())
            time.sleep(0.1)
