"""No test is skipped without a reason, and in CI none is skipped because a program is missing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from unittest import SkipTest, mock

from twisted.trial.unittest import SynchronousTestCase

from tests.support.programs import PACKAGES, program

ROOT: Final = Path(__file__).resolve().parent.parent
SCRIPT: Final = (ROOT / ".ci" / "run").read_text()


class MissingProgramTests(SynchronousTestCase):
    def setUp(self) -> None:
        PACKAGES["no-such-program"] = "no-such-package"
        self.addCleanup(PACKAGES.pop, "no-such-program")

    def test_a_missing_program_skips_the_test_and_names_the_package(self) -> None:
        with mock.patch.dict(os.environ):
            os.environ.pop("REQUIRE_PROGRAMS", None)
            error = self.assertRaises(SkipTest, program, "no-such-program")
        self.assertEqual("no-such-program is not installed: apt-get install no-such-package", str(error))

    def test_a_missing_program_fails_the_test_if_programs_are_required(self) -> None:
        with mock.patch.dict(os.environ, REQUIRE_PROGRAMS="1"):
            self.assertRaises(AssertionError, program, "no-such-program")


class CiTests(SynchronousTestCase):
    def test_ci_installs_every_program_that_tests_use_and_requires_them(self) -> None:
        command = SCRIPT.partition("\n    programs ")[2].partition("\ncheck ")[0]
        self.assertEqual(PACKAGES, dict(re.findall(r"([\w-]+):([\w-]+)", command)))
        self.assertIn("\nexport REQUIRE_PROGRAMS=1\n", SCRIPT)

    def test_the_readme_lists_the_packages_of_these_programs(self) -> None:
        listed = re.search(r"\(Debian: ``([^`]+)``\)", (ROOT / "README.rst").read_text())
        assert listed is not None
        self.assertEqual(set(PACKAGES.values()), set(listed[1].split()))

    def test_tests_are_skipped_only_by_the_functions_that_state_the_reason(self) -> None:
        word = "Skip" + "Test"
        found = [
            str(path.relative_to(ROOT))
            for path in sorted((ROOT / "tests").rglob("*.py"))
            if re.search(rf"raise {word}|[.]skipTest\(|[@]skip|\b[s]kip = ", path.read_text())
        ]
        self.assertEqual(["tests/support/skipping.py"], found)
