"""The black-box conformance suite that lies beside a checkout of this project, where it does: over each transport."""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from daemon import ROOT, Daemon

SUITE = ROOT.parent / "shared/conformance/oip_conformance.py"


class Run:
    """One daemon on models of its own, and the whole suite against it, under way until `finish`."""

    def __init__(self, made, unix, *flags):
        self.folder = Path(tempfile.mkdtemp(prefix="graftd-models-"))
        self.models = self.folder / "models"
        # Cases that load and unload write here, so no two runs can share it.
        shutil.copytree(made, self.models)
        self.daemon = Daemon(self.models, *flags)
        self.unix, self.suite = unix, None

    def begin(self):
        self.daemon.ready()
        where = self.daemon.uds if self.unix else self.daemon.tcp
        command = [sys.executable, SUITE, "--http-url", where, "--grpc-url", where, "--metrics-url", where,
                   "--repo", self.models]
        self.suite = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True)

    def finish(self):
        """Exit status and everything that was said."""
        said, _ = self.suite.communicate()
        return self.suite.returncode, said

    def stop(self):
        try:
            if self.suite:
                self.suite.kill()
                self.suite.wait()
                self.suite.stdout.close()
        finally:
            self.daemon.stop()
            shutil.rmtree(self.folder, ignore_errors=True)


@unittest.skipUnless(SUITE.exists(), f"no {os.path.relpath(SUITE, ROOT)}")
class Conformance(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        made = tempfile.mkdtemp(prefix="graftd-models-")
        cls.addClassCleanup(shutil.rmtree, made)
        subprocess.run([sys.executable, SUITE, "--gen-models", made], check=True)
        # Side by side: most of a run is waiting.
        cls.runs = {}
        for name, unix, flags in (("unix", True, ()), ("tcp", False, ()), ("inside", True, ("--isolation", "none"))):
            cls.runs[name] = Run(made, unix, *flags)
            cls.addClassCleanup(cls.runs[name].stop)
        for run in cls.runs.values():
            run.begin()

    def passes(self, name):
        status, said = self.runs[name].finish()
        lines = said.strip().splitlines() or ["the suite said nothing"]
        print(f"conformance, {name}: {lines[-1]}", file=sys.stderr)
        self.assertEqual(status, 0, "\n" + said)

    def test_over_the_unix_socket(self):
        self.passes("unix")

    def test_over_tcp(self):
        self.passes("tcp")

    def test_with_models_in_the_daemon(self):
        self.passes("inside")


if __name__ == "__main__":
    unittest.main()
