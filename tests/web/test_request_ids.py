"""Every answer has the id of its request, whatever became of it, and no two have the same."""

from __future__ import annotations

from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE


@each_way
class RequestIdTests(FrontTestCase):
    def test_every_answer_has_a_unique_request_id(self) -> None:
        self.front.create("a", body=b"hello")
        asked = [
            ("GET", BASE + "a"),
            ("GET", BASE + "a"),
            ("GET", BASE + "none"),
            ("POST", BASE + "a"),
            ("OPTIONS", BASE + "a"),
            ("PATCH", BASE + "a"),
        ]
        ids = [self.front.ask(method, target, TEXT).get("x-request-id") for method, target in asked]
        self.assertEqual(len(set(ids)), len(asked), ids)
        for name in ids:
            self.assertRegex(name or "", r"\A[0-9a-f]{8}-[0-9a-f]+\Z")
