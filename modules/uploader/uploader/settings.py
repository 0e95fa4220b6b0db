"""What an operator can set in the uploader's twin, and which combinations are refused."""

from pathlib import PurePosixPath
from typing import Annotated

from msgspec import Meta, Struct

from contract.lanes import SITE_ONLY, Lane
from edge_module.errors import Refused

MIB = 1024 * 1024
LOCAL_NAME = "local"

Name = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$", description="how logs, metrics and status call the destination")
]
Lanes = Annotated[tuple[Lane, ...], Meta(min_length=1, description="the lanes that go there")]
FileReference = Annotated[str, Meta(min_length=1, description="a file, relative to the module's configuration folder")]


class AzureBlob(Struct, frozen=True, kw_only=True, tag_field="kind", tag="azure_blob"):
    """A container of an Azure Storage account, in public Azure, on Azure Stack Hub or in Azurite.

    The credential is read from a mounted file, again whenever that changes: a connection string, or beside
    `account_url` a shared access signature or an account key.
    """

    name: Name
    lanes: Lanes
    container: Annotated[
        str, Meta(pattern=r"^[a-z0-9](-?[a-z0-9]){2,62}$", description="made at the first upload if it is missing")
    ]
    connection_string_file: FileReference | None = None
    account_url: Annotated[str, Meta(pattern=r"^https?://[^?#]+$", description="bare: no signature in it")] | None = (
        None
    )
    account_name: Annotated[str, Meta(description="whose key it is; only with account_key_file")] | None = None
    account_key_file: FileReference | None = None
    sas_file: FileReference | None = None
    api_version: Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$", description="Stack Hub speaks none newer")] = (
        "2019-07-07"
    )
    ca_file: (
        Annotated[str, Meta(description="PEM bundle that replaces the public roots for this destination")] | None
    ) = None


class Directory(Struct, frozen=True, kw_only=True, tag_field="kind", tag="directory"):
    """A folder of the module's own disk or of a mount."""

    name: Name
    lanes: Lanes
    path: Annotated[str, Meta(description="absolute, or relative to the state folder")] = "."


Destination = AzureBlob | Directory


class Settings(Struct, frozen=True, kw_only=True):
    destinations: Annotated[
        tuple[Destination, ...],
        Meta(description="where batches go; `rejected` goes to the state folder unless one names it"),
    ] = ()
    batch_max_rows: Annotated[int, Meta(ge=1, le=1_000_000, description="a batch is cut when it has as many rows")] = (
        50_000
    )
    batch_max_bytes: Annotated[
        int, Meta(ge=1024, le=32 * MIB, description="a batch is cut when its rows, uncompressed, have as many bytes")
    ] = 4 * MIB
    batch_max_age_secs: Annotated[
        float, Meta(ge=0.1, le=86_400, description="a batch is cut when its first row has waited as long")
    ] = 60.0
    spool_max_bytes: Annotated[
        int, Meta(ge=MIB, description="when the spool file uses as much, no message is acknowledged: every lane stops")
    ] = 1024 * MIB
    retry_max_secs: Annotated[float, Meta(ge=1, le=3600, description="longest pause between two attempts")] = 120.0
    attempt_base_secs: Annotated[
        float, Meta(ge=0.1, le=600, description="time-out of an attempt with no bytes: connect, and wait for an answer")
    ] = 20.0
    slowest_link_bytes_per_sec: Annotated[
        int, Meta(ge=256, description="an attempt gets a second more for as many bytes of its body")
    ] = 16 * 1024


def check(settings: Settings) -> None:
    """Raises Refused with the path of the first setting that cannot stand beside the others."""
    names: set[str] = set()
    for index, destination in enumerate(settings.destinations):
        path = f"$.destinations[{index}]"
        if destination.name in names:
            raise Refused(f"{path}.name", f"two destinations are called {destination.name}")
        names.add(destination.name)
        if isinstance(destination, AzureBlob):
            _check_azure(destination, path)
        elif destination.name == LOCAL_NAME and "rejected" not in destination.lanes:
            raise Refused(f"{path}.name", f"{LOCAL_NAME} is the name of the destination that takes rejected")


def _check_azure(destination: AzureBlob, path: str) -> None:
    for lane in destination.lanes:
        if lane in SITE_ONLY:
            raise Refused(f"{path}.lanes", f"{lane} never leaves the site: only a directory takes it")
    if destination.name == LOCAL_NAME:
        raise Refused(f"{path}.name", f"{LOCAL_NAME} is the name of the destination that takes rejected")
    files = {
        "connection_string_file": destination.connection_string_file,
        "account_key_file": destination.account_key_file,
        "sas_file": destination.sas_file,
    }
    given = [key for key, value in files.items() if value is not None]
    if len(given) != 1:
        raise Refused(path, f"name exactly one of {', '.join(files)}; this has {len(given)}")
    if given[0] != "connection_string_file" and destination.account_url is None:
        raise Refused(f"{path}.account_url", f"{given[0]} needs account_url beside it")
    if given[0] == "connection_string_file" and destination.account_url is not None:
        raise Refused(f"{path}.account_url", "the connection string says the address already")
    if given[0] == "account_key_file" and destination.account_name is None:
        raise Refused(f"{path}.account_name", "account_key_file needs account_name beside it")
    for key, value in {**files, "ca_file": destination.ca_file}.items():
        if value is not None and (value.startswith("/") or ".." in PurePosixPath(value).parts):
            raise Refused(f"{path}.{key}", "must be relative to the module's configuration folder")


def effective_destinations(settings: Settings) -> tuple[Destination, ...]:
    """The destinations, with the state folder for `rejected` when none takes it."""
    if any("rejected" in destination.lanes for destination in settings.destinations):
        return settings.destinations
    return (*settings.destinations, Directory(name=LOCAL_NAME, lanes=("rejected",)))


def names_by_lane(destinations: tuple[Destination, ...]) -> dict[Lane, tuple[str, ...]]:
    """Which destinations each lane goes to; a lane that goes nowhere is absent."""
    found: dict[Lane, tuple[str, ...]] = {}
    for destination in destinations:
        for lane in destination.lanes:
            found[lane] = (*found.get(lane, ()), destination.name)
    return found
