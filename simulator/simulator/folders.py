"""The state folder of a local edge: what lies where in it, and what the modules find in their mounted folders.

lock                       held while an edge runs here
manifest.json              the deployment manifest as expanded
devices.address            where devices reach edgeHub, when there is a fault proxy before it
faults.url                 where the fault proxies are told what to do, while they can be
run/control.sock           where the runtime answers
edge/                      the runtime's own durable state
azurite/                   blobs
logs/<name>.log            what each process said
modules/<module>/var       its state: /var/lib/edgeweir in a container
modules/<module>/etc       its configuration: /etc/edgeweir in a container
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from contract.bundle import Bundle, BundleError
from contract.bundle_zip import files_from_zip
from simulator.errors import UserError

_LOCK = "supervisor.lock"


class StateFolder:
    def __init__(self, path: Path) -> None:
        self.path = path.absolute()

    @property
    def control_socket(self) -> Path:
        return self.path / "run/control.sock"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def azurite(self) -> Path:
        return self.path / "azurite"

    @property
    def info(self) -> Path:
        return self.path / "edge.json"

    @property
    def devices_address(self) -> Path:
        return self.path / "devices.address"

    @property
    def faults_url(self) -> Path:
        return self.path / "faults.url"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.json"

    def var(self, module: str) -> Path:
        return self.path / "modules" / module / "var"

    def etc(self, module: str) -> Path:
        return self.path / "modules" / module / "etc"

    def is_ours(self) -> bool:
        """True for an empty folder, or one in which an edge has run: what is in it may be taken away."""
        return self.path.is_dir() and ((self.path / _LOCK).exists() or not any(self.path.iterdir()))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Held by the one edge that runs here. Raises UserError when another does."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("a+")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be used as state folder: {error.strerror}") from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                pid = file.read().strip() or "unknown"
                raise UserError(
                    f"an edge is running in {self.path} already (process {pid}); stop it, or give another --state"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def make_module(self, module: str) -> None:
        self.var(module).mkdir(parents=True, exist_ok=True)
        self.etc(module).mkdir(parents=True, exist_ok=True)

    def put_secret(self, module: str, name: str, text: str) -> None:
        """Replaced in one step, readable by this user only: the module may look at any moment."""
        path = self.etc(module) / "secrets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(path.name + ".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(text)
        fresh.replace(path)

    def put_policy(self, source: Path) -> None:
        """Raises UserError."""
        try:
            shutil.copyfile(source, self.etc("anomaly_router") / "policy.yaml")
        except OSError as error:
            raise UserError(f"{source}: {error.strerror}") from None

    def has_policy(self) -> bool:
        return (self.etc("anomaly_router") / "policy.yaml").is_file()

    def put_bundle(self, source: Path) -> Bundle:
        """Check a bundle (folder or zip) and mount it as models/current. Raises UserError in one line."""
        bundle = read_bundle(source)
        current = self.etc("scorer") / "models/current"
        current.parent.mkdir(parents=True, exist_ok=True)
        if current.is_dir():
            shutil.rmtree(current)
        current.unlink(missing_ok=True)
        if source.is_dir():
            shutil.copytree(source, current)
        else:
            shutil.copyfile(source, current)
        return bundle

    def has_bundle(self) -> bool:
        return (self.etc("scorer") / "models/current").exists()


def read_bundle(path: Path) -> Bundle:
    """A folder or a zip of it, verified. Raises UserError in one line that says what to do."""
    try:
        if path.is_dir():
            files = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
        else:
            files = files_from_zip(path.read_bytes())
        return Bundle.from_files(files)
    except OSError as error:
        raise UserError(f"bundle {path}: {error.strerror}") from None
    except BundleError as error:
        raise UserError(f"bundle {path}: {error}") from None
