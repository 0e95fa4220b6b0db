"""Pages that are in step with the code, and links that lead somewhere."""

import re
import subprocess
import sys
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
