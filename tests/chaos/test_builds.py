"""A patched build is what a process imports, and a patch that no longer fits is told by name."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.chaos.builds import ROOT, Build, Patch, PatchDoesNotApply, environment, make_build, merged, package_of

_PUMP = "libs/edge_module/edge_module/pump.py"
_SPOKEN = Patch("modules/scorer/scorer/__main__.py", "run(Scorer())", 'raise SystemExit("this is the build")')


async def output_of(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_process_imports_the_build_and_everything_else_from_the_source(tmp_path: Path) -> None:
    build = Build("loud", (Patch(_PUMP, "_HOLD_FIRST_SECS = 0.5", "_HOLD_FIRST_SECS = 0.25"),))
    folder = make_build(build, tmp_path / "build")
    program = "import edge_module.pump as p, scorer; print(p.__file__, p._HOLD_FIRST_SECS, scorer.__file__)"
    _, said = await output_of(environment(folder), "-c", program)
    assert said.split() == [
        str(folder / "edge_module/pump.py"),
        "0.25",
        str(ROOT / "modules/scorer/scorer/__init__.py"),
    ]


async def test_a_module_started_by_its_name_is_the_build(tmp_path: Path) -> None:
    folder = make_build(Build("loud", (_SPOKEN,)), tmp_path / "build")
    assert await output_of(environment(folder), "-m", "scorer") == (1, "this is the build\n")


async def test_the_runtime_started_from_the_projects_root_is_the_build(tmp_path: Path) -> None:
    # The root has a folder named like the package; a folder without __init__.py must not hide the build.
    patch = Patch("simulator/simulator/runtime/store.py", "SCHEMA_VERSION = 1", "SCHEMA_VERSION = 77")
    folder = make_build(Build("old disk", (patch,)), tmp_path / "build")
    program = "import simulator.runtime.store as s; print(s.__file__, s.SCHEMA_VERSION)"
    _, said = await output_of(environment(folder), "-c", program)
    assert said.split() == [str(folder / "simulator/runtime/store.py"), "77"]


async def test_a_build_may_import_from_the_tests(tmp_path: Path) -> None:
    patch = Patch(_PUMP, "import asyncio\n", "import asyncio\n\nimport tests.chaos.builds\n")
    build = Build("with tests", (patch,), needs_tests=True)
    env = environment(make_build(build, tmp_path / "build"), build)
    code, said = await output_of(env, "-P", "-c", "import edge_module.pump, tests; print(tests.__file__)")
    assert (code, said) == (0, f"{ROOT / 'tests/__init__.py'}\n")


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (Patch(_PUMP, "no such line", ""), "holds 0 times"),
        (Patch(_PUMP, "import", ""), "instead of once"),
        (Patch("libs/edge_module/edge_module/gone.py", "import", ""), "is not there"),
    ],
)
def test_a_patch_that_does_not_fit_todays_source_names_its_build(tmp_path: Path, patch: Patch, says: str) -> None:
    with pytest.raises(PatchDoesNotApply, match=f"build wrong: {patch.file} .*{says}"):
        make_build(Build("wrong", (patch,)), tmp_path / "build")
    assert not (tmp_path / "build").exists()


def test_a_build_that_is_no_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SyntaxError):
        make_build(Build("broken", (Patch(_PUMP, "import asyncio\n", "import import\n"),)), tmp_path / "build")


def test_merged_builds_hold_the_patches_of_each() -> None:
    first = Build("first", (Patch(_PUMP, "a", "b"),))
    both = merged("both", [first, Build("second", (_SPOKEN,), needs_tests=True)])
    assert (both.patches, both.needs_tests) == ((*first.patches, _SPOKEN), True)


def test_the_package_of_a_file_is_the_outermost_one() -> None:
    assert package_of(ROOT / "simulator/simulator/runtime/store.py") == ROOT / "simulator/simulator"
