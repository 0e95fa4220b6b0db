"""The secret of one destination, read from a mounted file at every attempt. Never in a log, a twin or a message."""

from pathlib import Path

import msgspec

from uploader.settings import AzureBlob
from uploader.store import NotNow

_LIMIT_BYTES = 16 * 1024


class Secret(msgspec.Struct, frozen=True):
    """What the SDK is given: a connection string, or an address and its key or signature."""

    connection_string: str | None = None
    account_url: str | None = None
    credential: str | dict[str, str] | None = None

    def __repr__(self) -> str:
        return "Secret(…)"


class Credentials:
    def __init__(self, destination: AzureBlob, config_dir: Path) -> None:
        self._destination = destination
        reference = destination.connection_string_file or destination.account_key_file or destination.sas_file
        assert reference is not None  # settings.check
        self._path = config_dir / reference
        self._last: str | None = None

    def read(self) -> Secret:
        """Raises NotNow when the file is missing or empty."""
        text = self._last = self._read_text()
        if not text:
            raise NotNow("credential_missing", f"the file {self._path.name} is missing, unreadable or empty")
        if self._destination.connection_string_file:
            return Secret(connection_string=text)
        credential: str | dict[str, str] = text.lstrip("?")
        if self._destination.account_key_file:
            credential = {"account_name": self._destination.account_name or "", "account_key": text}
        return Secret(account_url=self._destination.account_url, credential=credential)

    def have_changed(self) -> bool:
        return self._read_text() != self._last

    def _read_text(self) -> str:
        try:
            with self._path.open("rb") as file:
                return file.read(_LIMIT_BYTES).decode("utf-8", errors="replace").strip()
        except OSError:
            return ""
