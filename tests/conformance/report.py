"""What a run of the suite amounted to, read from the JSON report of vitest."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MESSAGE_LINES = 12


@dataclass
class SuiteResult:
    """The number of tests that passed, and a sentence for everything that was not as it should be."""

    passed: int = 0
    problems: list[str] = field(default_factory=list)


def read_report(path: Path) -> SuiteResult:
    """Read the result from vitest's JSON report at `path`."""
    report: dict[str, Any] = json.loads(path.read_text("utf-8"))
    result = SuiteResult()
    for file in report["testResults"]:
        tests = file["assertionResults"]
        for test in tests:
            _count(test, result)
        if file["status"] == "failed" and not any(test["status"] == "failed" for test in tests):
            result.problems.append(f"the suite itself failed\n{_shortened(file.get('message', ''))}")
    return result


def _count(test: dict[str, Any], result: SuiteResult) -> None:
    ancestors: list[str] = test["ancestorTitles"]
    name = " > ".join([*ancestors, test["title"]])
    status = test["status"]
    if status == "passed":
        result.passed += 1
    elif status == "failed":
        messages = "\n".join(test.get("failureMessages") or [])
        result.problems.append(f"FAILED {name}\n{_shortened(messages)}")
    else:
        result.problems.append(f"NOT RUN ({status}) {name}")


def _shortened(message: str) -> str:
    lines = [line for line in message.strip().splitlines() if not line.lstrip().startswith("at ")]
    return "\n".join(f"    {line}" for line in lines[:MESSAGE_LINES])
