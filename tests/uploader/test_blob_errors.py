"""What the service's answers mean, and when the next attempt comes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.reasons import REASONS
from uploader.blob_errors import clock_skew_secs, storage_error
from uploader.schedule import attempt_secs, pause_secs
from uploader.store import AlreadyThere, MayNotLook, NoContainer, NotFound, NotNow, StoreError

NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "looking", "expected"),
    [
        (409, "BlobAlreadyExists", False, AlreadyThere),
        (403, "UnauthorizedBlobOverwrite", False, AlreadyThere),
        (404, "ContainerNotFound", False, NoContainer),
        (404, "BlobNotFound", True, NotFound),
        (404, "", True, NotFound),
        (403, "AuthorizationPermissionMismatch", True, MayNotLook),
        (403, "AuthorizationPermissionMismatch", False, "auth_refused"),
        (403, "AuthenticationFailed", True, "auth_refused"),
        (401, "", False, "auth_refused"),
        (409, "ContainerBeingDeleted", False, "container_being_deleted"),
        (409, "MemoryExtentStoreAtSizeLimit", False, "storage_error"),
        (404, "", False, "storage_error"),
        (503, "ServerBusy", False, "storage_error"),
        (418, "Unheard", False, "storage_error"),
    ],
)
def test_the_code_decides_not_the_status(
    status: int, code: str, looking: bool, expected: type[StoreError] | str
) -> None:
    error = storage_error(status, code, date=format_datetime(NOW), now=NOW, looking=looking)
    if isinstance(expected, str):
        assert isinstance(error, NotNow)
        assert error.reason == expected
        assert expected in REASONS
    else:
        assert type(error) is expected


@pytest.mark.parametrize(("minutes", "reason"), [(-20, "clock_skew"), (6, "clock_skew"), (4, "auth_refused")])
def test_a_refusal_by_a_service_of_another_time_is_the_clocks_fault(minutes: int, reason: str) -> None:
    date = format_datetime(NOW + timedelta(minutes=minutes), usegmt=True)
    error = storage_error(403, "AuthenticationFailed", date=date, now=NOW, looking=False)
    assert isinstance(error, NotNow)
    assert error.reason == reason


def test_an_unreadable_date_says_nothing_about_the_clock() -> None:
    assert clock_skew_secs("yesterday", NOW) is None
    assert clock_skew_secs(None, NOW) is None


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(1, 3600))
def test_pauses_grow_to_their_cap_and_never_vanish(failures: int, jitter: float, cap: float) -> None:
    secs = pause_secs(failures, cap_secs=cap, random=lambda: jitter)
    assert 0.5 <= secs <= cap
    assert pause_secs(failures + 1, cap_secs=cap, random=lambda: jitter) >= secs


def test_an_attempt_gets_the_time_that_its_bytes_need_on_the_slowest_link() -> None:
    assert attempt_secs(4 * 1024 * 1024, base_secs=20, slowest_bytes_per_sec=16 * 1024) == 276
