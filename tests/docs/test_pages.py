"""Pages that are in step with the code, and links that lead somewhere."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(
    ROOT / name for name in subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).splitlines()
)


def test_the_page_of_reason_codes_is_generated_from_the_code(tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "requirements"))
    try:
        from reasons_page import PAGE, render  # type: ignore[import-not-found]  # a script, not a package
    finally:
        sys.path.pop(0)
    assert PAGE.read_text(encoding="utf-8") == render(), "run: make docs"


def test_every_variable_that_a_module_reads_is_documented() -> None:
    code = (ROOT / "libs/edge_module/edge_module/environment.py").read_text()
    page = (ROOT / "libs/edge_module/README.md").read_text()
    names = set(re.findall(r"EDGEWEIR_[A-Z_]+", code))
    assert names
    assert names == set(re.findall(r"EDGEWEIR_[A-Z_]+", page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))
    assert set(named) <= targets


def test_a_member_is_named_wherever_the_tools_look_for_it() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    members = document["tool"]["edgeweir"]["members"]
    paths = {path.removeprefix("$MYPY_CONFIG_FILE_DIR/") for path in document["tool"]["mypy"]["mypy_path"].split(":")}
    assert paths == set(members)
    packages = {
        tomllib.loads((ROOT / member / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
            "packages"
        ][0]
        for member in members
    }
    assert packages == set(document["tool"]["ruff"]["lint"]["isort"]["known-first-party"])
