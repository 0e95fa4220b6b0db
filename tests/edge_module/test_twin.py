"""When desired properties are applied, and what is said about it, without a hub."""

import logging

import pytest

from edge_module.clock import SystemClock
from edge_module.engine import SettingsOutcome
from edge_module.metrics import Metrics
from edge_module.twin import Document, Twin, TwinRequests


class StoredTwin(TwinRequests):
    """What a hub would answer."""

    desired: dict[str, object] = {"$version": 2, "bundle": "v2"}  # noqa: RUF012

    async def get(self) -> Document:
        return Document(self.desired, {})


class Settings:
    """A module that answers what it is told to."""

    def __init__(self, *outcomes: SettingsOutcome) -> None:
        self.outcomes = list(outcomes)
        self.applied = 0
        self.reports = 0
        self.twin = Twin(
            StoredTwin(SystemClock()),
            apply=self._apply,
            build_report=self._build_report,
            clock=SystemClock(),
            metrics=Metrics("m"),
            log=logging.getLogger("twin"),
        )

    async def _apply(self, desired: dict[str, object]) -> SettingsOutcome:
        self.applied += 1
        return self.outcomes.pop(0)

    async def _build_report(self) -> dict[str, object]:
        return {}


REFUSED = SettingsOutcome("refused", 2, "$.bundle", "not there")
ACCEPTED = SettingsOutcome("accepted", 2)


async def test_refused_settings_are_tried_again_at_every_read_until_they_are_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    module = Settings(REFUSED, REFUSED, ACCEPTED)
    for _ in range(4):
        await module.twin.read()
    assert module.applied == 3
    assert module.twin.outcome == ACCEPTED
    # The same refusal is said once.
    assert [record.getMessage() for record in caplog.records] == [
        "settings refused (bad_settings)",
        "settings accepted",
    ]


async def test_the_same_refusal_again_is_no_reason_for_a_report() -> None:
    module = Settings(REFUSED, REFUSED, SettingsOutcome("refused", 2, "$.bundle", "another fault"))
    due = []
    for _ in range(3):
        await module.twin.read()
        due.append(module.twin.is_report_due)
        module.twin.reported()
    assert due == [True, False, True]
