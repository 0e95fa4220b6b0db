"""A bundle on disk: a folder, or one zip. It is there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from contract.bundle import MANIFEST_FILE, is_safe_path
from contract.bundle_zip import files_to_zip
from trainer.errors import TrainError


def check_output(output: Path) -> None:
    """Raises TrainError when something stands there that is no bundle: it is not ours to replace."""
    if output.suffix == ".zip":
        if output.is_dir():
            raise TrainError(f"{output}: is a folder; name another --output")
    elif output.is_dir():
        if any(output.iterdir()) and not (output / MANIFEST_FILE).is_file():
            raise TrainError(f"{output}: exists and is not a bundle; name another --output or remove it")
    elif output.exists():
        raise TrainError(f"{output}: exists and is not a folder; name another --output")


def write_bundle(files: Mapping[str, bytes], output: Path) -> None:
    """Write beside the target, flush to disk, then rename into place. Raises TrainError."""
    check_output(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix == ".zip":
            _replace_file(files_to_zip(files), output)
        else:
            _replace_folder(files, output)
    except OSError as error:
        raise TrainError(f"{output}: cannot be written: {error.strerror}") from None


def _replace_file(content: bytes, output: Path) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{output.name}.", dir=output.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        _write_and_sync(temporary, content)
        temporary.chmod(0o644)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)


def _replace_folder(files: Mapping[str, bytes], output: Path) -> None:
    made = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        new = made / "new"
        for path, content in files.items():
            if not is_safe_path(path):
                raise TrainError(f"{path}: not a path inside a bundle")
            target = new / path
            target.parent.mkdir(parents=True, exist_ok=True)
            _write_and_sync(target, content)
        # A folder cannot be replaced in one step: the old one moves aside first, and back if the rename fails.
        if output.exists():
            output.rename(made / "old")
        try:
            new.rename(output)
        except OSError:
            if (made / "old").exists():
                (made / "old").rename(output)
            raise
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
