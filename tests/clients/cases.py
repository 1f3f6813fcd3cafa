"""What the test files share: one daemon a file, on the small models, and every way to reach it."""
import contextlib
import shutil
import tempfile
import unittest
from pathlib import Path

import models
import ways
from daemon import Daemon


class Case(unittest.TestCase):
    """Tests against one daemon that serves the small models."""

    flags = ()

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="graftd-models-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        models.write(cls.folder)
        cls.daemon = Daemon(cls.folder, *cls.flags)
        cls.addClassCleanup(cls.daemon.stop)
        cls.daemon.ready()

    @contextlib.contextmanager
    def way(self, name):
        """One client for the block; a failure names it and lets the test go on with the next."""
        with self.subTest(way=name), contextlib.closing(ways.open_way(name, self.daemon)) as way:
            yield way

    @contextlib.contextmanager
    def refused(self, kind, status, text):
        """The block must raise the client's error with this status and a message that matches."""
        with self.assertRaises(kind) as caught:
            yield
        error = caught.exception
        said = error.status() if callable(error.status) else error.status
        message = error.message() if hasattr(error, "message") else error.text
        self.assertEqual(str(said).removeprefix("StatusCode."), str(status))
        self.assertRegex(message, text)
