"""Make the development environment (`make demo` and `make test` call this when something it needs has changed).

Steps: a virtual environment; the locked requirements, checked by hash; the project's own distributions, editable;
Azurite from its npm lock, with the Node.js that came as a wheel; strace, for root on Debian. This file alone is written
for any Python 3, so that an old one gets a line that says what to do instead of a syntax error.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "dev.txt"
APT_SECS = 120


def fail(message):
    sys.stderr.write("edgeweir: %s\n" % message)
    sys.exit(1)


def check_machine():
    if not sys.platform.startswith("linux"):
        fail("the local edge runs on Linux (it needs all of 127.0.0.0/8); on another system open the dev container")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = "%d.%d" % sys.version_info[:2]
        fail("Python 3.11, 3.12 or 3.13 is needed and this is %s; run: make PYTHON=/path/to/python3.12 test" % found)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("this Python cannot make virtual environments; install its venv package (Debian: python3-venv)")


def run(step, command):
    started = time.monotonic()
    sys.stdout.write("setup: %s ... " % step)
    sys.stdout.flush()
    done = subprocess.run(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.stdout.write("failed\n%s\n" % done.stdout[-4000:])
        fail("setup stopped at '%s'; the lines above say why" % step)
    sys.stdout.write("%.0f s\n" % (time.monotonic() - started))


def members():
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["edgeweir"]["members"]


def install_strace():
    """For the tests that let system calls fail. Those say what is missing; the set-up does not need it."""
    if shutil.which("strace") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    install = ["apt-get", "-qq", "-y", "--no-install-recommends", "install", "strace"]
    try:
        # A machine whose package lists are not there yet needs them first.
        if subprocess.call(install, env=environment, timeout=APT_SECS, **quiet) != 0:
            subprocess.call(["apt-get", "-qq", "update"], env=environment, timeout=APT_SECS, **quiet)
            subprocess.call(install, env=environment, timeout=APT_SECS, **quiet)
    except (OSError, subprocess.TimeoutExpired):
        pass


def main():
    check_machine()
    target = ROOT / sys.argv[1]
    python = str(target / "bin" / "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    # The slow half is repeated only for another lock or another Python.
    marker = target / ".requirements"
    wanted = "%s %s" % (sys.version, hashlib.sha256(LOCK.read_bytes()).hexdigest())
    if not marker.exists() or marker.read_text() != wanted:
        run("virtual environment", [sys.executable, "-m", "venv", "--clear", str(target)])
        run("locked requirements (two minutes or so)", [*pip, "--require-hashes", "-r", str(LOCK)])
        marker.write_text(wanted)
    editable = [argument for member in members() for argument in ("-e", "./" + member)]
    run("edgeweir's distributions", [*pip, "--no-build-isolation", *editable])
    install_strace()
    run("Azurite", [python, "-m", "simulator.azurite_setup"])
    (target / ".ready").touch()


if __name__ == "__main__":
    main()
