"""What an answer of the storage service means. Pure: decided by `x-ms-error-code`, by the status only without one."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from uploader.store import AlreadyThere, MayNotLook, NoContainer, NotFound, NotNow, StoreError

# The service refuses a request whose Date is further off than 15 minutes; from here on the clock is the likely cause.
CLOCK_SKEW_SECS: Final = 5 * 60

_ERRORS: Final[dict[str, type[StoreError]]] = {
    "BlobAlreadyExists": AlreadyThere,
    # What a signature that may create but not write answers for a blob that is there.
    "UnauthorizedBlobOverwrite": AlreadyThere,
    "ContainerNotFound": NoContainer,
    "BlobNotFound": NotFound,
    "AuthorizationPermissionMismatch": MayNotLook,
}
_AUTH: Final = frozenset(
    {
        "AuthenticationFailed",
        "AuthorizationFailure",
        "InvalidAuthenticationInfo",
        "NoAuthenticationInformation",
        "AuthorizationPermissionMismatch",
        "AuthorizationProtocolMismatch",
        "AuthorizationSourceIPMismatch",
        "AuthorizationResourceTypeMismatch",
        "AuthorizationServiceMismatch",
        "InsufficientAccountPermissions",
        "AccountIsDisabled",
    }
)


def storage_error(status: int, code: str, *, date: str | None, now: datetime, looking: bool) -> StoreError:
    """The error to raise. `date` is the answer's Date header; `looking` says that nothing was to be written."""
    kind = _ERRORS.get(code)
    if kind is not None and (kind is not MayNotLook or looking):
        return kind(code)
    if code in _AUTH or (not code and status in (401, 403)):
        return _refused(status, code, date, now)
    if not code and status == 404 and looking:
        return NotFound("HTTP 404")
    if code == "ContainerBeingDeleted":
        return NotNow("container_being_deleted", f"HTTP {status} {code}")
    return NotNow("storage_error", f"HTTP {status} {code}".rstrip())


def _refused(status: int, code: str, date: str | None, now: datetime) -> NotNow:
    skew = clock_skew_secs(date, now)
    if skew is not None and abs(skew) > CLOCK_SKEW_SECS:
        return NotNow("clock_skew", f"this clock is {skew:+.0f} s off the storage service's; HTTP {status} {code}")
    return NotNow("auth_refused", f"HTTP {status} {code}".rstrip())


def clock_skew_secs(date: str | None, now: datetime) -> float | None:
    """How far this clock is ahead of an HTTP Date (RFC 9110, section 5.6.7); None when that cannot be read."""
    if date is None:
        return None
    try:
        theirs = parsedate_to_datetime(date)
    except ValueError:
        return None
    return (now - (theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC))).total_seconds()
