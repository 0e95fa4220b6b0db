"""Make the development environment (`make demo` and `make test` call this when something it needs has changed).

Runs on whatever Python make found, so it says in one line what is wrong with a machine instead of failing halfway.
Steps: a virtual environment; the locked requirements, checked by hash; the project's own distributions, editable;
Azurite from the npm lock, with the Node.js that came as a wheel.
"""

import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def fail(message):
    sys.stderr.write("edgeweir: %s\n" % message)
    sys.exit(1)


def check_machine():
    if not sys.platform.startswith("linux"):
        fail("the local edge runs on Linux only (it needs loopback addresses 127.0.0.0/8); use the dev container")
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = "%d.%d" % sys.version_info[:2]
        fail("Python 3.11 to 3.13 is needed, this is %s; run: make PYTHON=/path/to/python3.12" % found)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail("this Python cannot make virtual environments; install its venv package (Debian: python3-venv)")


def run(step, command, **kwargs):
    started = time.monotonic()
    sys.stdout.write("setup: %s ... " % step)
    sys.stdout.flush()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    if done.returncode != 0:
        sys.stdout.write("failed\n%s\n" % done.stdout[-4000:])
        fail("setup stopped at '%s'; the lines above are what it said" % step)
    sys.stdout.write("%.0f s\n" % (time.monotonic() - started))


def members():
    import tomllib

    with open(os.path.join(ROOT, "pyproject.toml"), "rb") as file:
        return tomllib.load(file)["tool"]["edgeweir"]["members"]


def main():
    check_machine()
    target = os.path.join(ROOT, sys.argv[1])
    python = os.path.join(target, "bin", "python")
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    run("virtual environment", [sys.executable, "-m", "venv", "--clear", target])
    run("locked requirements", [*pip, "--require-hashes", "-r", "requirements/dev.txt"])
    editable = [argument for member in members() for argument in ("-e", "./" + member)]
    run("edgeweir's distributions", [*pip, "--no-build-isolation", *editable])
    run("Azurite", [python, "-m", "simulator.azurite_setup"])
    with open(os.path.join(target, ".ready"), "w"):
        pass


if __name__ == "__main__":
    main()
