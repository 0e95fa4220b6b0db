"""Check that each distribution stands on what it declares (`make check`).

One development environment holds everything, which hides an undeclared import until somebody installs a distribution
alone. So for every member: (1) each import in its source, lazy ones included, names the standard library, the member
itself or a dependency that its own pyproject declares; (2) all its modules import in a fresh process in which only
those dependencies and what they require in turn can be found.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

_ALONE = """
import importlib, pkgutil, sys
allowed, package = set(sys.argv[1].split(",")), sys.argv[2]
class OnlyDeclared:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{name} is not among the declared dependencies", name=name)
sys.meta_path.insert(0, OnlyDeclared())
module = importlib.import_module(package)
for found in pkgutil.walk_packages(module.__path__, package + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return normal(match.group())


def package_of(document: dict[str, Any]) -> str:
    """The one package that a member's pyproject puts into its wheel."""
    package: str = document["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"][0]
    return package


def closure(distribution: str, seen: set[str]) -> set[str]:
    """The distribution and everything it requires in this environment."""
    if distribution in seen:
        return seen
    seen.add(distribution)
    try:
        needed = requires(distribution) or []
    except PackageNotFoundError:
        return seen
    for requirement in needed:
        if "extra ==" not in requirement:
            closure(requirement_name(requirement), seen)
    return seen


def imports_of(source: Path) -> Iterator[tuple[int, str]]:
    """Full names, because several distributions share a top-level namespace such as `azure`."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.lineno, node.module


def main() -> int:
    members = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["edgeweir"]["members"]
    providers = {top: {normal(name) for name in names} for top, names in packages_distributions().items()}
    documents = {member: tomllib.loads((ROOT / member / "pyproject.toml").read_text()) for member in members}
    for document in documents.values():  # an editable installation does not list its modules
        providers[package_of(document)] = {normal(document["project"]["name"])}
    faults = []
    for member, document in documents.items():
        package = package_of(document)
        own = normal(document["project"]["name"])
        declared = {own, *(requirement_name(text) for text in document["project"].get("dependencies", []))}
        for source in sorted((ROOT / member / package).rglob("*.py")):
            for line, name in imports_of(source):
                top = name.partition(".")[0]
                if top in sys.stdlib_module_names or top == package or providers.get(top, set()) & declared:
                    continue
                faults.append(f"{source.relative_to(ROOT)}:{line}: imports {name}, which {own} does not declare")
        allowed_distributions: set[str] = set()
        for distribution in declared:
            closure(distribution, allowed_distributions)
        allowed = {top for top, names in providers.items() if names & allowed_distributions} | {package}
        command = [sys.executable, "-c", _ALONE, ",".join(sorted(allowed)), package]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT / member)
        if done.returncode != 0:
            faults.append(f"{own}: does not import alone: {done.stderr.strip().splitlines()[-1]}")
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    sys.stdout.write(f"imported alone: {len(members)} distributions, {len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
