"""Write the hash-pinned lock files from what the distributions declare (`make lock`).

`dev.txt` holds what all distributions and the tools need; each module's own file holds what its image installs.
Locks are complete, so they are installed with `--no-deps --require-hashes`; see overrides.txt for the one conflict.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
BUILD_TOOLS = ["hatchling==1.33.0", "editables"]


def project(member: str) -> dict[str, Any]:
    document: dict[str, Any] = tomllib.loads((ROOT / member / "pyproject.toml").read_text())["project"]
    return document


def closure(member: str, by_name: dict[str, str]) -> set[str]:
    """All outside requirements of a member, through the members it depends on."""
    outside: set[str] = set()
    for requirement in project(member).get("dependencies", []):
        if requirement in by_name:
            outside |= closure(by_name[requirement], by_name)
        else:
            outside.add(requirement)
    return outside


def compile_lock(requirements: list[str], output: Path, *, python: str = "3.11") -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".in") as source:
        source.write("\n".join(sorted(requirements)) + "\n")
        source.flush()
        command = [sys.executable, "-m", "uv", "pip", "compile", "--universal", "--generate-hashes", "--no-header"]
        command += ["--no-annotate", "--python-version", python, "--overrides", str(HERE / "overrides.txt")]
        subprocess.run([*command, source.name, "-o", str(output)], check=True, stdout=subprocess.DEVNULL)
    print(f"wrote {output.relative_to(ROOT)}")  # noqa: T201 - this is a command


def main() -> None:
    members = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["edgeweir"]["members"]
    by_name = {str(project(member)["name"]): member for member in members}
    tools = [line for line in (HERE / "tools.in").read_text().splitlines() if line and not line.startswith("#")]
    everything = set(tools).union(*(closure(member, by_name) for member in members))
    compile_lock(sorted(everything), HERE / "dev.txt")
    for member in members:
        if member.startswith("modules/"):
            compile_lock([*closure(member, by_name), *BUILD_TOOLS], HERE / f"{Path(member).name}.txt")


if __name__ == "__main__":
    main()
