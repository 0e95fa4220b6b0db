"""A container of an Azure Storage account as a destination, through azure-storage-blob.

What the SDK is told, and why
- `api_version` from the settings: its own default is refused by Azure Stack Hub and by Azurite.
- `retry_total=0`: with its defaults a refused connection blocks for 90 s and a silent server for 323 s, and its own
  repeat of a request whose answer was lost fails with 409. The sender's schedule repeats instead.
- `connection_timeout` from the size of the body: it bounds the sending of the whole body, not only the connecting.
- no secondary host: Stack Hub has none, and a name for it is made up from the account's.
- `overwrite=False` is `If-None-Match: *`; `content_md5` makes the service check, and keep, a single Put Blob's MD5.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError
from azure.storage.blob import ContainerClient, ContentSettings

from uploader.blob_errors import storage_error
from uploader.credentials import Credentials, Secret
from uploader.schedule import attempt_secs
from uploader.settings import AzureBlob, Settings
from uploader.store import Blob, Found, NotNow

# One Put Blob up to here; the service allows 256 MiB for the oldest version the SDK speaks.
_SINGLE_PUT_BYTES: Final = 64 * 1024 * 1024
# No content encoding: clients that undo it on the way would hand out a .gz that is none.
_CONTENT_TYPE: Final = "application/gzip"

# Its INFO lines hold every header of every request.
logging.getLogger("azure").setLevel(logging.WARNING)


class BlobStore:
    def __init__(
        self,
        destination: AzureBlob,
        settings: Settings,
        config_dir: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._destination = destination
        self._settings = settings
        self._config_dir = config_dir
        self._credentials = Credentials(destination, config_dir)
        self._now = now
        self._secret: Secret | None = None
        self._client: ContainerClient | None = None

    def put(self, blob: Blob) -> None:
        with self._translated(looking=False) as container:
            container.get_blob_client(blob.name).upload_blob(
                blob.body,
                overwrite=False,
                metadata=blob.metadata,
                content_settings=ContentSettings(content_type=_CONTENT_TYPE, content_md5=bytearray(blob.md5)),
                connection_timeout=self._timeout(len(blob.body)),
                read_timeout=self._timeout(0),
            )

    def find(self, name: str) -> Found:
        with self._translated(looking=True) as container:
            properties = container.get_blob_client(name).get_blob_properties(
                connection_timeout=self._timeout(0), read_timeout=self._timeout(0)
            )
            md5 = properties.content_settings.content_md5
            return Found(properties.size, bytes(md5) if md5 else None, dict(properties.metadata or {}))

    def create_container(self) -> None:
        with self._translated(looking=False) as container:
            try:
                container.create_container(connection_timeout=self._timeout(0), read_timeout=self._timeout(0))
            except ResourceExistsError as error:
                if _code_of(error) != "ContainerAlreadyExists":
                    raise

    def credential_has_changed(self) -> bool:
        return self._credentials.have_changed()

    def _timeout(self, size: int) -> float:
        return attempt_secs(
            size,
            base_secs=self._settings.attempt_base_secs,
            slowest_bytes_per_sec=self._settings.slowest_link_bytes_per_sec,
        )

    @contextmanager
    def _translated(self, *, looking: bool) -> Iterator[ContainerClient]:
        """The SDK's errors as this package's, with no part of a request or a secret in their texts."""
        client = self._fresh_client()
        try:
            yield client
        except HttpResponseError as error:
            if error.response is None:
                # Nothing was sent: the key is no base64.
                raise NotNow("credential_missing", "the file does not hold a usable credential") from None
            raise storage_error(
                error.status_code or 0,
                _code_of(error),
                date=_header(error, "Date"),
                now=self._now(),
                looking=looking,
            ) from None
        except AzureError as error:
            # No answer: refused, reset, timed out, no such host.
            raise NotNow("storage_unreachable", type(error.inner_exception or error).__name__) from None

    def _fresh_client(self) -> ContainerClient:
        """The client, made anew when the credential's file has changed."""
        secret = self._credentials.read()
        if self._client is None or secret != self._secret:
            if self._client is not None:
                self._client.close()
            self._client = self._connect(secret)
            self._secret = secret
        return self._client

    def _connect(self, secret: Secret) -> ContainerClient:
        ca_file = self._destination.ca_file
        if ca_file and not (self._config_dir / ca_file).is_file():
            raise NotNow("credential_missing", f"the CA bundle {ca_file} is missing")
        options: dict[str, Any] = {
            "api_version": self._destination.api_version,
            "retry_total": 0,
            "max_single_put_size": _SINGLE_PUT_BYTES,
            "connection_verify": str(self._config_dir / ca_file) if ca_file else True,
        }
        try:
            if secret.connection_string is not None:
                return ContainerClient.from_connection_string(
                    secret.connection_string, self._destination.container, **options
                )
            return ContainerClient(
                secret.account_url or "", self._destination.container, credential=secret.credential, **options
            )
        except ValueError:
            # The SDK's text may quote the secret.
            raise NotNow("credential_missing", "the file does not hold a usable credential") from None


def _header(error: HttpResponseError, name: str) -> str | None:
    headers = getattr(error.response, "headers", {})
    value = headers.get(name)
    return None if value is None else str(value)


def _code_of(error: HttpResponseError) -> str:
    """An answer to HEAD has no body, so the SDK sets no code: the header has it all the same."""
    code = getattr(error, "error_code", None) or _header(error, "x-ms-error-code") or ""
    return str(getattr(code, "value", code))
