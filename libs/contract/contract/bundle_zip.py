"""A bundle as one zip, over bytes: nothing is unpacked to a disk, so no entry can land outside a folder.

Sizes are taken from what really inflates, never from the zip's own directory, which a hostile file can forge.
"""

import io
import stat
import zipfile
import zlib
from collections.abc import Mapping
from typing import Final

from contract.bundle import MANIFEST_FILE, MAX_FILES, BundleError, is_safe_path

# Of all files together, inflated. Anomaly detectors for sensor data are far below it.
BUNDLE_LIMIT_BYTES: Final = 256 * 1024 * 1024
# Zip cannot say an earlier time; a fixed one makes equal bundles equal bytes.
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def files_from_zip(data: bytes, *, limit: int = BUNDLE_LIMIT_BYTES) -> dict[str, bytes]:
    """Every file by its path. One top folder around all files is taken off. Raises BundleError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            _check_entries(entries)
            files = _inflate(archive, entries, limit)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise BundleError("bundle_unreadable", f"not a readable zip: {error}") from None
    return _without_top_folder(files)


def files_to_zip(files: Mapping[str, bytes]) -> bytes:
    """Equal bytes for equal files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(files):
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(entry, files[path])
    return buffer.getvalue()


def _check_entries(entries: list[zipfile.ZipInfo]) -> None:
    # manifest.json and a signature come on top of what the manifest may list.
    if len(entries) > MAX_FILES + 2:
        raise BundleError("bundle_unreadable", f"the zip holds {len(entries)} files, at most {MAX_FILES} are allowed")
    seen: set[str] = set()
    for entry in entries:
        # ZipInfo cuts a name at a NUL and turns the local separator into '/'; orig_filename is what the zip says.
        if entry.orig_filename != entry.filename or not is_safe_path(entry.filename):
            raise BundleError("bundle_unreadable", f"the zip holds an unsafe path: {entry.orig_filename!r}")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError("bundle_unreadable", f"the zip holds a link: {entry.filename!r}")
        if entry.filename in seen:
            raise BundleError("bundle_unreadable", f"the zip holds {entry.filename!r} twice")
        seen.add(entry.filename)


def _inflate(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], limit: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = limit
    for entry in entries:
        with archive.open(entry) as stream:
            content = stream.read(left + 1)
        left -= len(content)
        if left < 0:
            raise BundleError("bundle_unreadable", f"the zip inflates to more than {limit} bytes")
        files[entry.filename] = content
    return files


def _without_top_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    if MANIFEST_FILE in files or not files:
        return files
    tops = {path.partition("/")[0] for path in files}
    if len(tops) != 1 or not all("/" in path for path in files):
        return files
    return {path.partition("/")[2]: content for path, content in files.items()}
