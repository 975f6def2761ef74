"""The header lines that pages for operators have in common."""

from __future__ import annotations

from typing import Final

NO_STORE: Final = b"Cache-Control: no-store\r\n"

#: The head of a JSON answer.
JSON_HEAD: Final = b"Content-Type: application/json\r\n" + NO_STORE
