"""anomaly_router: scored rows in; compliant readings, episodes and insights out.

`handle` reads one scores message, applies the policy to each row, moves the state of the row's series, and emits on the
lanes; all of it commits together or not at all. What leaves is decided by `policy`, which rows belong together by
`episodes`, what is aggregated by `insights`; this file only joins them.
"""

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import ClassVar

import msgspec
from msgspec import Raw

from anomaly_router import episodes, insights
from anomaly_router.outgoing import ROW_LIMIT_BYTES, Outgoing
from anomaly_router.policy_file import PolicyFile
from anomaly_router.series import SCHEMA as SERIES_SCHEMA
from anomaly_router.series import SeriesState, SeriesStore
from anomaly_router.settings import Settings
from contract.identity import keyed_id
from contract.messages import Run, ScoredRow, Scores, Source, Unreadable, decode, reject
from contract.timestamps import format_timestamp, parse_timestamp
from edge_module import Context, Hold, Incoming, MethodError, Module, Poison, Refused, Transaction
from policy import NotAnObject, Policy, members

LATENESS_WINDOWS = 60
SERIES_LIMIT_BYTES = 1_024
# Bounds one tick's transaction; the rest is done by the next ticks.
SERIES_PER_TICK = 200

_META_SCHEMA = "CREATE TABLE IF NOT EXISTS router_meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;"


class AnomalyRouter(Module[Settings]):
    name: ClassVar[str] = "anomaly_router"
    settings_type = Settings
    inputs = frozenset({"scores"})
    schema = SERIES_SCHEMA + _META_SCHEMA

    def open(self, db: sqlite3.Connection, settings: Settings, context: Context) -> None:
        _check(settings)
        self._db = db
        self._context = context
        self._settings = settings
        self._saved_policy = _meta(db, "policy")
        self._series = SeriesStore(db, context.clock.monotonic())
        self._episodes_opened = self._episodes_written = _episode_count(db)
        self._policy_file = PolicyFile(
            context.config_dir / settings.policy_file, settings.policy_sha256, self._saved_policy
        )
        self._told: object = None
        self._tell_policy()

    def configure(self, settings: Settings) -> None:
        _check(settings)
        self._settings = settings
        self._policy_file.configure(self._context.config_dir / settings.policy_file, settings.policy_sha256)
        self._tell_policy()

    # Messages

    def handle(self, message: Incoming, tx: Transaction) -> None:
        policy = self._policy_in_force()
        try:
            scores = decode(Scores, message.body)
        except Unreadable as error:
            raise Poison(error.reason, error.detail) from None
        self._save_policy(tx)
        outgoing = self._outgoing(policy, scores)
        for run in scores.runs:
            self._route_run(run, scores, policy, outgoing, tx)
        self._finish(tx, [outgoing])

    def _route_run(self, run: Run, scores: Scores, policy: Policy, outgoing: Outgoing, tx: Transaction) -> None:
        now = self._context.clock.monotonic()
        for row in run.rows:
            try:
                fields = members(row.reading)
            except NotAnObject as error:
                raise Poison("bad_shape", f"a row's reading is no JSON object: {error}") from None
            reading = policy.row("readings", row, run.source, fields)
            event_row = policy.row("anomalies", row, run.source, fields) if row.anomaly else b""
            if detail := _too_large(row, reading, event_row):
                self._reject_row(run.source, row, detail, tx)
                continue
            outgoing.add_reading(reading)
            state = self._series.touch(run.source.device, run.source.module, row.series, now)
            state.model = scores.model
            verdict = episodes.Verdict(row.t, parse_timestamp(row.t), row.score, row.anomaly)
            self._advance_episode(state, verdict, outgoing, event_row)
            self._place_in_window(state, verdict, fields, policy, outgoing, tx)

    def _advance_episode(self, state: SeriesState, verdict: episodes.Verdict, outgoing: Outgoing, row: bytes) -> None:
        if state.episode is None and not verdict.anomaly:
            return
        rules = episodes.Rules(self._settings.episode_close_after_rows, self._settings.episode_close_after_secs)
        state.episode, changes = episodes.advance(state.episode, verdict, rules, self._new_episode_id)
        outgoing.add_changes(state, changes, row)

    def _place_in_window(
        self,
        state: SeriesState,
        verdict: episodes.Verdict,
        fields: Mapping[str, Raw],
        policy: Policy,
        outgoing: Outgoing,
        tx: Transaction,
    ) -> None:
        numbers = policy.lanes["insights"].numbers(fields)
        sample = insights.Sample(
            verdict.micros,
            verdict.score,
            verdict.anomaly,
            ((field.name, field.treatment, value) for field, value in numbers),
        )
        before = state.timeline.late_rows, state.timeline.untimed_rows
        rules = insights.Rules(self._settings.insight_window_secs, self._settings.insight_lateness_secs)
        closings = insights.place(state.timeline, sample, rules)
        if closings:
            outgoing.add_closings(state, closings)
        elif before != (state.timeline.late_rows, state.timeline.untimed_rows):
            tx.count("late_rows" if verdict.micros is not None else "untimed_rows")

    def _reject_row(self, source: Source, row: ScoredRow, detail: str, tx: Transaction) -> None:
        tx.rejected.extend(
            reject(
                bytes(row.reading),
                reason="too_large",
                detail=detail,
                source=source,
                input_name="scores",
                received=format_timestamp(self._context.clock.now_micros()),
                i=row.i,
            )
        )
        tx.count("rejected_rows", reason="too_large")

    def _new_episode_id(self) -> str:
        """A number that this store has not given before, keyed: it says nothing about the series or its values."""
        self._episodes_opened += 1
        return keyed_id(self._context.id_key, b"episode", str(self._episodes_opened).encode())

    # Between messages

    def tick(self, tx: Transaction) -> None:
        """Take a changed policy; close what has been idle; forget the longest silent series above the bound."""
        self._policy_file.look()
        self._tell_policy()
        policy = self._policy_file.policy
        if policy is None:
            return
        self._save_policy(tx)
        outgoing: dict[object, Outgoing] = {}
        self._close_idle(policy, outgoing)
        self._forget_silent(policy, outgoing, tx)
        self._finish(tx, list(outgoing.values()))

    def _close_idle(self, policy: Policy, outgoing: dict[object, Outgoing]) -> None:
        clock, settings = self._context.clock, self._settings
        window_limit, episode_limit = clock.scaled(settings.insight_idle_secs), clock.scaled(settings.episode_idle_secs)
        now = clock.monotonic()
        closed = 0
        for key, touched in list(self._series.active.items()):
            idle = now - touched
            if idle < min(window_limit, episode_limit) or closed == SERIES_PER_TICK:
                break
            closed += self._close(key, policy, outgoing, windows=idle >= window_limit, episode=idle >= episode_limit)

    def _forget_silent(self, policy: Policy, outgoing: dict[object, Outgoing], tx: Transaction) -> None:
        surplus = min(self._series.count - self._settings.max_series, SERIES_PER_TICK)
        if surplus <= 0:
            return
        self._series.write()
        for key in self._series.longest_silent(surplus):
            self._close(key, policy, outgoing, windows=True, episode=True)
            self._series.remove(key)
        tx.count("forgotten_series", surplus)

    def _close(
        self, key: bytes, policy: Policy, outgoing: dict[object, Outgoing], *, windows: bool, episode: bool
    ) -> bool:
        """Whether there was anything to close."""
        state = self._series.load(key)
        if state is None:
            return False
        ends_episode = episode and state.episode is not None
        if not (ends_episode or (windows and state.timeline.windows)):
            return False
        state = self._series.change(key)
        out = outgoing.setdefault(state.model, self._outgoing(policy, state))
        if ends_episode and state.episode is not None:
            out.add_changes(state, [episodes.Closed(state.episode)], b"")
            state.episode = None
        if windows:
            out.add_closings(state, insights.close_all(state.timeline))
        return True

    def rollback(self) -> None:
        self._series.forget(self._context.clock.monotonic())
        self._episodes_opened = self._episodes_written = _episode_count(self._db)
        self._saved_policy = _meta(self._db, "policy")

    def _outgoing(self, policy: Policy, origin: Scores | SeriesState) -> Outgoing:
        return Outgoing(policy, origin.model, rows_per_event=self._settings.episode_rows_per_event)

    def _finish(self, tx: Transaction, outgoing: list[Outgoing]) -> None:
        for each in outgoing:
            each.emit(tx)
        self._series.write()
        if self._episodes_opened != self._episodes_written:
            _set_meta(tx.db, "episodes_opened", str(self._episodes_opened).encode())
            self._episodes_written = self._episodes_opened

    # Policy

    def _policy_in_force(self) -> Policy:
        policy = self._policy_file.policy
        if policy is None:
            problem = self._policy_file.problem
            raise Hold("no_policy", problem.text if problem else "")
        return policy

    def _save_policy(self, tx: Transaction) -> None:
        """Keep the text of the policy in force before anything leaves under it."""
        text = self._policy_file.text
        if text is not None and text != self._saved_policy:
            _set_meta(tx.db, "policy", text)
            self._saved_policy = text

    def _tell_policy(self) -> None:
        """Health, twin and log, when something about the policy has changed."""
        policy, problem = self._policy_file.policy, self._policy_file.problem
        now = (policy.hash if policy else None, problem)
        if now == self._told:
            return
        self._told = now
        context = self._context
        code = "no_policy" if policy is None else "policy_refused"
        for other in {"no_policy", "policy_refused"} - ({code} if problem else set()):
            context.health.clear(other)
        if problem is not None:
            context.health.set(code, problem.text)
            context.log.warning("policy refused", extra={"fields": {"reason": code, "detail": problem.text}})
        if policy is not None:
            context.log.info("policy in force", extra={"fields": {"policy": policy.hash}})
            context.retry_held()
        context.report({"policy": self._policy_report()})

    def _policy_report(self) -> dict[str, object]:
        policy, problem = self._policy_file.policy, self._policy_file.problem
        return {
            "hash": policy.hash if policy else None,
            "name": policy.name if policy else None,
            "version": policy.version if policy else None,
            "refused": problem.text if problem else None,
        }

    # What operators ask

    def methods(self) -> Mapping[str, Callable[[object], object]]:
        return {"policy_info": self._policy_info, "explain": self._explain}

    def status(self) -> Mapping[str, object]:
        return {"policy": self._policy_report(), "series": self._series.count}

    def _policy_info(self, payload: object) -> object:
        policy = self._policy_file.policy
        if policy is None:
            return {**self._policy_report(), "pinned": self._settings.policy_sha256}
        return {
            **self._policy_report(),
            "pinned": self._settings.policy_sha256,
            "lanes": [{"lane": lane, "purpose": purpose} for lane, purpose in policy.rules.lanes.items()],
            "fields": len(policy.rules.fields),
            "envelope": policy.envelope(),
        }

    def _explain(self, payload: object) -> object:
        """`{"reading": {…}}` in; one decision per field out. Names and decisions, never values."""
        policy = self._policy_file.policy
        if policy is None:
            raise MethodError(503, "no_policy")
        reading = payload.get("reading") if isinstance(payload, dict) else None
        if not isinstance(reading, dict):
            raise MethodError(400, 'the payload is {"reading": {…}}')
        decisions = policy.explain(reading)
        return {"policy": policy.hash, "fields": msgspec.to_builtins(decisions), "envelope": policy.envelope()}


def _check(settings: Settings) -> None:
    """Raises Refused for what the types cannot say."""
    path = PurePosixPath(settings.policy_file)
    if path.is_absolute() or ".." in path.parts:
        raise Refused("$.policy_file", "a path inside the configuration folder, without ..")
    if settings.insight_lateness_secs > LATENESS_WINDOWS * settings.insight_window_secs:
        raise Refused("$.insight_lateness_secs", f"at most {LATENESS_WINDOWS} times insight_window_secs")


def _too_large(row: ScoredRow, *compliant: bytes) -> str | None:
    """Why a message with this row alone could not travel; None when it can."""
    largest = max(map(len, compliant))
    if largest > ROW_LIMIT_BYTES:
        return f"the row has {largest} bytes, the limit is {ROW_LIMIT_BYTES}"
    if len(row.series.encode()) > SERIES_LIMIT_BYTES:
        return f"the series' name has more than {SERIES_LIMIT_BYTES} bytes"
    return None


def _episode_count(db: sqlite3.Connection) -> int:
    return int(_meta(db, "episodes_opened") or 0)


def _meta(db: sqlite3.Connection, name: str) -> bytes | None:
    row = db.execute("SELECT value FROM router_meta WHERE name = ?", (name,)).fetchone()
    return None if row is None else bytes(row[0])


def _set_meta(db: sqlite3.Connection, name: str, value: bytes) -> None:
    db.execute("INSERT OR REPLACE INTO router_meta (name, value) VALUES (?, ?)", (name, value))
