"""Tests of the reading of regular files."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.regular_files import NotAFileError, file_errors_as, file_signature, open_regular_file


class OpenRegularFileTests(SynchronousTestCase):
    def test_a_file_is_opened_for_reading(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(b"data")
        with open_regular_file(path) as file:
            self.assertEqual((b"data", False), (file.read(), file.writable()))

    def test_directories_pipes_and_devices_are_refused_without_waiting_and_closed(self) -> None:
        pipe = self.mktemp()
        os.mkfifo(pipe, 0o600)
        before = len(os.listdir("/proc/self/fd"))
        for path in (os.getcwd(), pipe, "/dev/null"):
            self.assertRaises(NotAFileError, open_regular_file, path)
        self.assertEqual(before, len(os.listdir("/proc/self/fd")))

    def test_a_missing_file_is_an_oserror(self) -> None:
        self.assertIsInstance(self.assertRaises(OSError, open_regular_file, self.mktemp()), FileNotFoundError)


class FileErrorsAsTests(SynchronousTestCase):
    def refusal(self, path: str) -> str:
        with self.assertRaises(ValueError) as caught, file_errors_as(ValueError, "setting 'path'", "a PEM file"):
            open_regular_file(path)
        self.assertIsNone(caught.exception.__cause__)
        return str(caught.exception)

    def test_each_error_becomes_a_sentence_with_the_cause_and_what_to_change(self) -> None:
        name = "x" * 300
        for path, sentence in (
            (self.mktemp(), "no such file. Give the path of a PEM file."),
            (os.getcwd(), "not a regular file. Give the path of a PEM file."),
            (name, "cannot be read: File name too long. Give the server's user read permission."),
        ):
            self.assertEqual(f"setting 'path': {sentence}", self.refusal(path))

    def test_other_errors_are_raised_as_they_are(self) -> None:
        with self.assertRaises(KeyError), file_errors_as(ValueError, "where", "a file"):
            raise KeyError


class FileSignatureTests(SynchronousTestCase):
    def test_it_differs_after_a_change_and_after_a_replacement_of_the_same_content(self) -> None:
        path, other = Path(self.mktemp()), Path(self.mktemp())
        signatures = [file_signature(path)]
        path.write_bytes(b"a")
        signatures.append(file_signature(path))
        path.write_bytes(b"ab")
        signatures.append(file_signature(path))
        other.write_bytes(b"ab")
        other.replace(path)
        signatures.append(file_signature(path))
        self.assertEqual(4, len(set(signatures)))
        self.assertIsNone(signatures[0])
        self.assertEqual(signatures[-1], file_signature(path))
