"""Builds of our own packages that differ from the source by a few patches, made when they are needed.

A build is a folder with whole copies of the packages that its patches touch. First on PYTHONPATH it wins over the
installed packages, which lie behind it on `sys.path`; all else is imported from where it is. The source tree is never
written to, and a module started with another environment next time is the honest one again.

A patch says what it replaces. When that text is not in today's source exactly once, `make_build` raises: a build that
no longer is what its name says would let a test pass that proves nothing.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True)
class Patch:
    """`file` is relative to the project's root; `old` occurs in it exactly once."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Build:
    name: str
    patches: tuple[Patch, ...]
    needs_tests: bool = False
    """Whether what it puts in imports something of `tests`: then the project's root is on PYTHONPATH as well."""


class PatchDoesNotApply(Exception):
    """The source has changed: the build must be written anew for it."""

    def __init__(self, build: str, patch: Patch, why: str) -> None:
        super().__init__(f"build {build}: {patch.file} {why}: {patch.old!r}")
        self.build = build
        self.patch = patch


def make_build(build: Build, folder: Path) -> Path:
    """Make the build in `folder`, which must not exist, and return it. Raises PatchDoesNotApply."""
    texts = patched(build)
    folder.mkdir(parents=True)
    for package in sorted({package_of(file) for file in texts}):
        shutil.copytree(package, folder / package.name, ignore=_LEFT_OUT)
    for file, text in texts.items():
        copy = folder / file.relative_to(package_of(file).parent)
        copy.write_text(text, encoding="utf-8")
    return folder


def patched(build: Build) -> dict[Path, str]:
    """The files that the build changes, with their new text. Raises PatchDoesNotApply."""
    texts: dict[Path, str] = {}
    for patch in build.patches:
        file = ROOT / patch.file
        if file not in texts and not file.is_file():
            raise PatchDoesNotApply(build.name, patch, "is not there, it should hold")
        text = texts.get(file) or file.read_text(encoding="utf-8")
        found = text.count(patch.old)
        if found != 1:
            raise PatchDoesNotApply(build.name, patch, f"holds {found} times, instead of once,")
        texts[file] = text.replace(patch.old, patch.new)
        compile(texts[file], patch.file, "exec")
    return texts


def package_of(file: Path) -> Path:
    """The folder of the outermost package that a file belongs to."""
    package = file.parent
    while (package.parent / "__init__.py").is_file():
        package = package.parent
    return package


def environment(build_folder: Path, build: Build | None = None) -> dict[str, str]:
    """What a process that shall run the build has in its environment."""
    folders = [build_folder, ROOT] if build is not None and build.needs_tests else [build_folder]
    return {"PYTHONPATH": os.pathsep.join(map(str, folders))}


Builds = Mapping[str, Path]
"""The folder of the build that a part runs, by the part's name."""


def with_builds(environments: Mapping[str, Mapping[str, str]], builds: Builds) -> dict[str, dict[str, str]]:
    """The parts' environments, with each build's folder before all else that they import from."""
    found = {part: dict(variables) for part, variables in environments.items()}
    for part, folder in builds.items():
        variables = found.setdefault(part, {})
        behind = [variables["PYTHONPATH"]] if "PYTHONPATH" in variables else []
        variables["PYTHONPATH"] = os.pathsep.join([str(folder), *behind])
    return found


def merged(name: str, builds: Sequence[Build]) -> Build:
    """All of their patches in one build: two build folders that copy the same package would shadow each other."""
    patches = tuple(patch for build in builds for patch in build.patches)
    return Build(name, patches, needs_tests=any(build.needs_tests for build in builds))
