"""Episode events and insight windows as the policy lets them out. What it denies is absent, not null."""

from typing import Literal, TypeAlias

from msgspec import Raw

from anomaly_router.episodes import Episode
from anomaly_router.insights import Closing
from anomaly_router.series import SeriesState
from contract.messages import EpisodeEvent, FieldAggregate, InsightWindow
from contract.timestamps import format_timestamp
from policy import LanePolicy

EventKind: TypeAlias = Literal["opened", "updated", "closed"]


def episode_event(
    lane: LanePolicy, kind: EventKind, state: SeriesState, episode: Episode, rows: list[Raw]
) -> EpisodeEvent:
    """`t` is the time of the episode's latest anomaly so far: the event is about that moment."""
    timed = lane.carries("t")
    return EpisodeEvent(
        kind=kind,
        episode=episode.id,
        rows_total=episode.rows,
        series=state.series if lane.carries("series") else None,
        device=state.device if lane.carries("device") else None,
        started=episode.started if timed else None,
        last=episode.last if timed else None,
        ended=episode.last if timed and kind == "closed" else None,
        peak_score=episode.peak_score if lane.carries("score") else None,
        t=episode.last if timed else None,
        rows=rows,
    )


def insight_window(lane: LanePolicy, state: SeriesState, closing: Closing) -> InsightWindow:
    """Aggregates of fields whose transform is no longer what the policy says are left away."""
    window = closing.window
    timed, score = lane.carries("t"), window.score if lane.carries("score") else None
    treatments = {field.name: field.treatment for field in lane.numeric_fields}
    return InsightWindow(
        rows=window.rows,
        anomalies=window.anomalies,
        unscored=window.unscored,
        t=format_timestamp(window.start) if timed else None,
        end=format_timestamp(window.end) if timed else None,
        series=state.series if lane.carries("series") else None,
        device=state.device if lane.carries("device") else None,
        late_rows=closing.late_rows,
        untimed_rows=closing.untimed_rows,
        score_max=score.max if score is not None else None,
        score_mean=score.mean if score is not None else None,
        fields={
            name: FieldAggregate(count=each.count, min=each.min, max=each.max, mean=each.mean)
            for name, each in window.fields.items()
            if treatments.get(name) == each.treatment
        },
    )
