"""Tests of fetch_onnxruntime.py: what it leaves behind, above all when things go wrong. No network is used."""
import contextlib
import hashlib
import io
import os
import stat
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

import fetch_onnxruntime as fetcher

BYTES = b"a shared library, so to speak" * 1000
MEMBERS = {fetcher.MEMBER: BYTES, "onnxruntime/LICENSE": b"MIT", "onnxruntime/ThirdPartyNotices.txt": b"and others"}
INSTALLED = {fetcher.LIBRARY, fetcher.STAMP, *fetcher.NOTICES, ".lock"}


def wheel_bytes(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


class Index:
    """Stands for pip: hands out one wheel and counts how often it was asked."""

    def __init__(self, members=MEMBERS, tamper=b""):
        self.data, self.calls, self.tamper = wheel_bytes(members), 0, tamper
        library = hashlib.sha256(members.get(fetcher.MEMBER, b"")).hexdigest()
        self.pin = fetcher.Pin("manylinux_2_28_test", hashlib.sha256(self.data).hexdigest(), library)

    def __call__(self, pin, folder):
        self.calls += 1
        path = folder / pin.wheel
        path.write_bytes(self.data + self.tamper)
        return path


class FetchTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "target" / "onnxruntime"
        self.library = self.folder / fetcher.LIBRARY

    def fetch(self, index):
        return fetcher.fetch(self.folder, index.pin, index)

    def names(self):
        return {path.name for path in self.folder.iterdir()}

    def assert_nothing_installed(self):
        self.assertLessEqual(self.names(), {".lock"})

    def assert_fails(self, index, *words):
        with self.assertRaises(fetcher.FetchError) as caught:
            self.fetch(index)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def test_installs_library_and_notices(self):
        self.assertTrue(self.fetch(Index()))
        self.assertEqual(self.library.read_bytes(), BYTES)
        self.assertEqual(stat.S_IMODE(self.library.stat().st_mode), 0o644)
        self.assertEqual(self.names(), INSTALLED)

    def test_does_nothing_when_in_place(self):
        index = Index()
        self.fetch(index)
        before = self.library.stat()
        with mock.patch.object(fetcher, "file_sha256", side_effect=AssertionError("hashed again")):
            self.assertFalse(self.fetch(index))
        self.assertEqual((self.library.stat(), index.calls), (before, 1))

    def test_without_a_stamp_it_hashes_and_does_not_download(self):
        index = Index()
        self.fetch(index)
        for stamp in (None, b"\xff torn"):
            (self.folder / fetcher.STAMP).unlink()
            if stamp:
                (self.folder / fetcher.STAMP).write_bytes(stamp)
            self.assertFalse(self.fetch(index))
        self.assertEqual(index.calls, 1)

    def test_a_changed_library_is_replaced_even_with_its_times_set_back(self):
        index = Index()
        self.fetch(index)
        before = self.library.stat()
        with open(self.library, "r+b") as file:
            file.write(b"A")
        os.utime(self.library, ns=(before.st_atime_ns, before.st_mtime_ns))
        self.assertTrue(self.fetch(index))
        self.assertEqual(self.library.read_bytes(), BYTES)

    def test_a_missing_notice_is_brought_back(self):
        index = Index()
        self.fetch(index)
        (self.folder / "LICENSE").unlink()
        self.assertTrue(self.fetch(index))
        self.assertEqual(self.names(), INSTALLED)

    def test_tampered_wheel(self):
        self.assert_fails(Index(tamper=b"!"), "not the pinned wheel", "expected")
        self.assert_nothing_installed()

    def test_missing_member(self):
        index = Index({name: data for name, data in MEMBERS.items() if name != fetcher.MEMBER})
        self.assert_fails(index, fetcher.MEMBER)
        self.assert_nothing_installed()

    def test_library_that_does_not_match_its_own_pin(self):
        index = Index()
        index.pin = index.pin._replace(library_sha256="0" * 64)
        self.assert_fails(index, fetcher.LIBRARY, "expected 000")
        self.assertEqual(self.names(), {".lock", *fetcher.NOTICES})

    def test_pip_fails(self):
        failed = subprocess.CompletedProcess([], 1, "", "ERROR: No matching\n distribution\n")
        index = Index()
        with mock.patch.object(fetcher.subprocess, "run", return_value=failed):
            with self.assertRaises(fetcher.FetchError) as caught:
                fetcher.fetch(self.folder, index.pin)
        self.assertIn("ERROR: No matching distribution", str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))
        self.assert_nothing_installed()

    def test_pip_leaves_another_file(self):
        index = Index()
        self.assertRaises(fetcher.FetchError, fetcher.fetch, self.folder, index.pin, lambda pin, at: at / pin.wheel)
        self.assert_nothing_installed()

    def test_interrupted_write_keeps_the_old_library(self):
        index = Index()
        self.fetch(index)
        self.library.write_bytes(b"wrong, but whole")
        for error in (KeyboardInterrupt, OSError(28, "No space left on device"), SystemExit(143)):
            with mock.patch.object(fetcher.os, "fsync", side_effect=error):
                with self.assertRaises(type(error) if isinstance(error, BaseException) else error):
                    self.fetch(index)
            self.assertEqual(self.library.read_bytes(), b"wrong, but whole")
            self.assertEqual(self.names(), INSTALLED)

    def test_leftovers_of_a_killed_run_are_removed(self):
        (self.folder / ".fetch-dir").mkdir(parents=True)
        (self.folder / ".fetch-dir" / "half.whl").write_bytes(b"half")
        (self.folder / ".fetch-file").write_bytes(b"half")
        self.fetch(Index())
        self.assertEqual(self.names(), INSTALLED)


class CommandTest(unittest.TestCase):
    def run_main(self, *arguments):
        """Runs main() and returns what it ended with; restores the signal handler that main() sets."""
        with mock.patch.object(fetcher.signal, "signal"), contextlib.redirect_stdout(io.StringIO()):
            with self.assertRaises(SystemExit) as caught:
                fetcher.main([str(a) for a in arguments])
        return caught.exception.code

    def test_errors_are_one_paragraph_and_exit_1(self):
        with tempfile.TemporaryDirectory() as scratch:
            said = self.run_main(scratch, "--wheel", Path(scratch) / "absent.whl")
        self.assertIsInstance(said, str)  # sys.exit(text) prints the text and ends with 1
        self.assertTrue(said.startswith("fetch_onnxruntime: there is no readable wheel"), said)
        self.assertNotIn("\n", said)

    def test_unwritable_folder(self):
        with tempfile.NamedTemporaryFile() as file:
            said = self.run_main(Path(file.name) / "below-a-file")
        self.assertIn("name another folder", said)

    def test_unknown_machines_are_told_what_to_do(self):
        for system, machine in (("Darwin", "arm64"), ("Linux", "riscv64")):
            with mock.patch.object(fetcher.platform, "system", return_value=system), \
                    mock.patch.object(fetcher.platform, "machine", return_value=machine):
                with self.assertRaisesRegex(fetcher.FetchError, "ORT_DYLIB_PATH"):
                    fetcher.pin_for_this_machine()

    def test_default_folder_follows_cargo(self):
        with mock.patch.dict(os.environ, {"CARGO_TARGET_DIR": "/elsewhere"}):
            self.assertEqual(fetcher.default_folder(), Path("/elsewhere/onnxruntime"))
        with mock.patch.dict(os.environ):
            os.environ.pop("CARGO_TARGET_DIR", None)
            root = Path(fetcher.__file__).resolve().parent.parent
            self.assertEqual(fetcher.default_folder(), root / "target" / "onnxruntime")


if __name__ == "__main__":
    unittest.main()
