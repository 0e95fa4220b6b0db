"""The model's bytes from the mounted file or folder. All of the scorer's reading of models is here."""

from pathlib import Path

from contract.bundle import MANIFEST_FILE, MAX_FILES, Bundle, BundleError, sha256_digest
from contract.bundle_zip import BUNDLE_LIMIT_BYTES, files_from_zip
from scorer.settings import BareModel

_WHAT_TO_DO = "put a bundle there, or name another in the setting 'bundle'"


class NoBundle(Exception):
    """Nothing is there (yet)."""


def read_bundle(path: Path, bare: BareModel | None) -> Bundle:
    """A folder, a zip, or (when `bare` says what it expects) an .onnx file. Raises NoBundle or BundleError."""
    try:
        if path.is_dir():
            return Bundle.from_files(_read_folder(path))
        if not path.exists():
            raise NoBundle(f"{path} does not exist; {_WHAT_TO_DO}")
        content = _read(path, BUNDLE_LIMIT_BYTES)
    except OSError as error:
        raise BundleError("bundle_unreadable", f"{path}: {error.strerror}") from None
    if path.suffix != ".onnx":
        return Bundle.from_files(files_from_zip(content))
    if bare is None:
        raise BundleError("bundle_unreadable", f"{path.name} is a bare model: set allow_bare_model and bare_model")
    return Bundle(bare.manifest(content), sha256_digest(content), (), {"model.onnx": content})


def resolve_bundle(config_dir: Path, setting: str) -> Path:
    """The path that a setting names. Raises BundleError when it would leave the config folder.

    Links inside the folder may point elsewhere: whoever mounts it decides that, not who writes the twin.
    """
    relative = Path(setting)
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError("bundle_unreadable", f"{setting!r} is no path under the config folder")
    return config_dir / relative


def _read_folder(folder: Path) -> dict[str, bytes]:
    if not (folder / MANIFEST_FILE).is_file():
        # A folder that is being copied has no manifest yet: the same as nothing.
        raise NoBundle(f"{folder} holds no {MANIFEST_FILE}; {_WHAT_TO_DO}")
    files: dict[str, bytes] = {}
    left = BUNDLE_LIMIT_BYTES
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        if len(files) > MAX_FILES + 1:
            raise BundleError("bundle_unreadable", f"the folder holds more than {MAX_FILES} files")
        content = _read(path, left)
        left -= len(content)
        files[path.relative_to(folder).as_posix()] = content
    return files


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise BundleError("bundle_unreadable", f"{path.name}: a bundle may hold {BUNDLE_LIMIT_BYTES} bytes in all")
    return content
