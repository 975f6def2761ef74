"""The table of errors in docs/subscriptions.rst has the codes of all refusals."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "subscriptions.rst"

#: Of requests that are not among those of the page: its status and code are in docs/errors.rst.
_OF_ADMIN = {(409, "KEY_NOT_ROTATED")}


class PageTests(SynchronousTestCase):
    def test_each_code_is_listed_once_with_its_status(self) -> None:
        classes = [
            each
            for each in vars(errors).values()
            if isinstance(each, type) and issubclass(each, errors.SubscriptionError)
        ]
        known = {(each.status, each.code) for each in classes} - _OF_ADMIN
        listed = [(int(status), code) for status, code in re.findall(r"(?m)^(\d{3}) +``([A-Z_]+)`` ", PAGE.read_text())]
        self.assertEqual(sorted(known), sorted(listed))
