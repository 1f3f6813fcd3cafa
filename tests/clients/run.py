#!/usr/bin/env python3
"""Run the tests beside this file with the clients of a virtual environment: run.py VENV BINARY [FILE...]

Every test file is a process of its own, three at a time: they mostly wait, and KServe's and Triton's packages cannot
be imported into one process, since both register the same protobuf messages. What is skipped is named. Without VENV
every file is skipped; `make test` sets it up where a package index can be reached.
"""
import argparse
import concurrent.futures
import os
import subprocess
import sys
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
AT_ONCE = 3


class Naming(unittest.TextTestResult):
    """Says which tests were skipped, and why, without listing all others too."""

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.stream.writeln(f"skipped: {test.id()}: {reason}")


def run_here(name):
    """Runs one file's tests in this process."""
    suite = unittest.defaultTestLoader.loadTestsFromName(name)
    result = unittest.TextTestRunner(resultclass=Naming, warnings="default").run(suite)
    return 0 if result.wasSuccessful() else 1


def run_apart(python, name):
    """Runs one file's tests in a process of its own: exit status, what it said, seconds."""
    began = time.monotonic()
    done = subprocess.run([python, __file__, "--here", name], cwd=HERE, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout.strip(), time.monotonic() - began


def main():
    if sys.argv[1:2] == ["--here"]:
        sys.path.insert(0, str(HERE))
        return run_here(sys.argv[2])
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("venv", type=Path, help="the environment with what requirements.txt names")
    options.add_argument("binary", type=Path, help="the graftd to test")
    options.add_argument("files", nargs="*", help="test files to run, such as test_infer (default: all)")
    chosen = options.parse_args()
    names = chosen.files or sorted(path.stem for path in HERE.glob("test_*.py"))
    if not (chosen.venv / "ready").exists():
        for name in names:
            print(f"skipped: tests/clients/{name}.py: no clients in {chosen.venv}; see what `make clients` says")
        return 0
    os.environ["GRAFTD"] = str(chosen.binary.resolve())
    python = chosen.venv.absolute() / "bin/python"
    failed = []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        runs = {threads.submit(run_apart, python, name): name for name in names}
        for run in concurrent.futures.as_completed(runs):
            status, said, seconds = run.result()
            print(f"== tests/clients/{runs[run]}.py, {seconds:.0f} s\n{said}", flush=True)
            if status:
                failed.append(runs[run])
    if failed:
        print(f"run.py: failed: {', '.join(sorted(failed))}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
