"""The real binary on sockets of its own, for as long as a test file needs it.

Nothing here waits for a time: a start ends with a line that the daemon writes, a stop with its exit.
"""
import ctypes
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("GRAFTD", ROOT / "target/debug/graftd"))

# Longer than anything here takes on a busy machine: reached only where something is wrong.
PATIENCE = 300


# <sys/prctl.h>: the signal that a process gets when the one that started it ends.
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def _end_with_us():
    """A test that is killed leaves no daemon behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Lines:
    """What a pipe brought so far; waiting for a line that is yet to come."""

    def __init__(self, pipe):
        self.lines, self.ended, self.grew = [], False, threading.Condition()
        self.reader = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self.reader.start()

    def _read(self, pipe):
        with pipe:
            for line in pipe:
                with self.grew:
                    self.lines.append(line.rstrip("\n"))
                    self.grew.notify_all()
        with self.grew:
            self.ended = True
            self.grew.notify_all()

    def text(self):
        with self.grew:
            return "\n".join(self.lines)

    def wait_for(self, pattern):
        """The first line that matches; None if the pipe closes without one."""
        def found():
            return next(filter(None, (re.search(pattern, line) for line in self.lines)), None)
        with self.grew:
            if not self.grew.wait_for(lambda: self.ended or found(), PATIENCE):
                raise AssertionError(f"waited {PATIENCE} s for {pattern!r} in:\n" + "\n".join(self.lines))
            return found()


class Daemon:
    """graftd serving a folder of models on a Unix socket and on a TCP port that the system picked."""

    def __init__(self, models, *flags):
        self.folder = Path(tempfile.mkdtemp(prefix="graftd-"))
        self.socket = self.folder / "graftd.sock"
        command = [BINARY, "serve", "--models", models, "--socket", self.socket, "--listen", "127.0.0.1:0",
                   "--tcp-admin", "--work-dir", self.folder / "work", *flags]
        # What the tester set for daemons of their own, in the shell or in a file, must not reach this one.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GRAFTD_")}
        environment |= {"GRAFTD_CONFIG": "/dev/null", "GRAFTD_NO_AUTOTUNE": "true", "RUST_LOG": "info", "NO_COLOR": "1"}
        self.process = subprocess.Popen(list(map(str, command)), env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        preexec_fn=_end_with_us)
        self.out, self.log = Lines(self.process.stdout), Lines(self.process.stderr)
        self.tcp = None

    def ready(self):
        """Returns itself once every model was looked at."""
        if not self.out.wait_for("graftd serves"):
            self.stop()
            raise AssertionError("graftd ended before it served; its log:\n" + self.log.text())
        self.tcp = self.log.wait_for(r"listening on (127\.0\.0\.1:\d+)").group(1)
        return self

    @property
    def uds(self):
        """The Unix socket as gRPC names it."""
        return f"unix:{self.socket}"

    def stop(self):
        """Ends the daemon and removes what it left; says nothing if it is gone already."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.out.reader.join()
            self.log.reader.join()
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self.ready()

    def __exit__(self, *_):
        self.stop()
