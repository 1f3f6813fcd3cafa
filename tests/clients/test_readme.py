"""Every snippet of README.md against a daemon that serves models/, as somebody who copies it would run it."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from daemon import BINARY, PATIENCE, ROOT, Daemon

# Snippets that cannot be run here, by their first line: why not.
NOT_RUN = {
    "git clone <this repository> graftd && cd graftd": "fetches and builds graftd, which is what these tests run",
}
# What a snippet prints that asks for no flower, by how it begins.
PRINTS = {"graftd bench": "ANSWERS/S", "graftd simulate": "highest rate with 99 %",
          "graftd tune": "ALONE"}
# Blocks that nobody runs: a configuration, a drawing.
NOT_PROGRAMS = ("toml", "")
EXAMPLE = ROOT / "examples/client.rs"


def snippets():
    """Language and text of every fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def example():
    """The Rust example without what only this repository needs: its header and its lint."""
    text = EXAMPLE.read_text()
    return text[text.index("\nuse ") + 1:]


def command(language, text):
    """What runs a snippet."""
    return {"sh": ["bash", "-euc", text], "python": [sys.executable, "-c", text],
            "rust": [BINARY.parent / "examples/client"]}[language]


class Snippets(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(ROOT / "models")
        cls.addClassCleanup(cls.daemon.stop)
        cls.daemon.ready()

    def run_snippet(self, language, text):
        folder = Path(tempfile.mkdtemp(prefix="graftd-readme-"))
        self.addCleanup(shutil.rmtree, folder)
        (folder / "graftd.sock").symlink_to(self.daemon.socket)
        for name in ("configs", "models"):
            (folder / name).symlink_to(ROOT / name)
        environment = os.environ | {"PATH": f"{BINARY.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(command(language, text), cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        # The others ask the same flower, and some clients end well whatever they are answered.
        expected = [told for begin, told in PRINTS.items() if text.startswith(begin)] or ["setosa"]
        self.assertIn(expected[0], done.stdout, done.stderr)

    def test_each_does_what_it_says(self):
        ran = set()
        for language, text in snippets():
            first = text.splitlines()[0]
            if language in NOT_PROGRAMS or first in NOT_RUN:
                continue
            with self.subTest(language=language, first=first):
                self.run_snippet(language, text)
                ran.add((language, first))
        self.assertLessEqual({"sh", "python", "rust"}, {language for language, _ in ran})

    def test_what_is_not_run_is_there(self):
        firsts = {text.splitlines()[0] for _, text in snippets()}
        self.assertLessEqual(set(NOT_RUN), firsts)

    def test_the_rust_snippet_is_the_example(self):
        self.assertEqual([text for language, text in snippets() if language == "rust"], [example()])
