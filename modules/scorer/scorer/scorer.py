"""The module: readings in, scored rows out, windows kept in the same transaction."""

import logging
import sqlite3
from collections.abc import Callable, Mapping
from typing import ClassVar, Final

import msgspec

from contract.bundle import BundleError
from contract.messages import Source, Unreadable
from edge_module import Context, Hold, Incoming, MethodError, Module, Poison, Refused, Transaction
from scorer.bundle_files import NoBundle, read_bundle, resolve_bundle
from scorer.model import LoadedModel
from scorer.readings import BadElement, Fields, Row, has_timestamp, inflate, read_rows, split
from scorer.scoring import bodies, message_overhead, score_rows, unscored_rows
from scorer.series import SeriesState
from scorer.settings import Settings
from scorer.windows_store import SCHEMA, SeriesKey, WindowStore

NO_MODEL: Final = "no_model"


class Scorer(Module[Settings]):
    name: ClassVar[str] = "scorer"
    settings_type = Settings
    inputs = frozenset({"telemetry"})
    schema = SCHEMA

    def open(self, db: sqlite3.Connection, settings: Settings, context: Context) -> None:
        """A bundle that cannot be used does not keep the module from starting: it holds, says why, and looks again."""
        self._context = context
        self._log: logging.Logger = context.log
        self._store = WindowStore(db, limit=settings.max_series, in_memory=settings.series_in_memory)
        self._settings = settings
        self._model: LoadedModel | None = None
        self._no_model_detail = ""
        self._next_look = 0.0
        self._look_for_model()

    def configure(self, settings: Settings) -> None:
        """While a model runs, settings whose bundle cannot take its place are refused; without one they are taken."""
        try:
            model = self._load(settings)
        except (BundleError, NoBundle) as error:
            if self._model is not None and _bundle_settings(settings) != _bundle_settings(self._settings):
                pinned = isinstance(error, BundleError) and error.code == "bundle_digest"
                raise Refused("$.bundle_digest" if pinned else "$.bundle", str(error)) from None
            self._settings = settings
            if self._model is None:
                self._say_no_model(str(error))
            else:
                self._log.warning(
                    "the running model stays, its bundle can no longer be read", extra=_fields(detail=error)
                )
        else:
            self._settings = settings
            self._take_model(model)
        self._store.limit = settings.max_series
        self._store.in_memory = settings.series_in_memory

    def has_timestamp(self, body: bytes) -> bool:
        return self._model is not None and has_timestamp(body, self._model.fields)

    def handle(self, message: Incoming, tx: Transaction) -> None:
        model = self._model
        if model is None and self._settings.when_no_model == "hold":
            raise Hold(NO_MODEL, self._no_model_detail)
        source = tx.source()
        rows = self._rows(message, source, tx)
        identity = None if model is None else model.identity
        if model is None:
            scored = unscored_rows(rows, NO_MODEL)
        else:
            keyed = self._keys(message)
            scored, states = score_rows(model, rows, lambda series: self._store.get(keyed(series), model.layout))
            for series, state in states.items():
                self._store.put(keyed(series), model.layout, state)
            if evicted := self._store.evict_surplus():
                tx.count("series_evicted", evicted)
        for body in bodies(identity, source, scored):
            tx.emit("scores", body)
        tx.count("rows", len(scored))
        tx.count("anomalous_rows", sum(row.anomaly for row in scored))
        tx.count("unscored_rows", sum(row.no_score is not None for row in scored))
        tx.on_commit(self._store.committed)

    def tick(self, tx: Transaction) -> None:
        if self._model is None and self._context.clock.monotonic() >= self._next_look and self._look_for_model():
            self._context.retry_held()

    def rollback(self) -> None:
        self._store.forget_changes()

    def methods(self) -> Mapping[str, Callable[[object], object]]:
        return {"score": self._score_method, "model_info": self._model_info_method}

    def status(self) -> Mapping[str, object]:
        model = None if self._model is None else msgspec.to_builtins(self._model.identity)
        return {"model": model, "series": self._store.series_count}

    def _rows(self, message: Incoming, source: Source, tx: Transaction) -> list[Row]:
        """The readable rows; the others are rejected one by one. Raises Poison when there is no telling them apart."""
        try:
            elements = split(inflate(message.body, message.content_encoding))
        except Unreadable as error:
            raise Poison(error.reason, error.detail) from None
        identity = None if self._model is None else self._model.identity
        fields = Fields(None) if self._model is None else self._model.fields
        overhead = message_overhead(identity, source)
        rows: list[Row] = []
        for row in read_rows(elements, fields, fallback_series=message.device, message_overhead=overhead):
            if isinstance(row, BadElement):
                tx.reject(row.text, reason=row.reason, detail=row.detail, i=row.i)
            else:
                rows.append(row)
        return rows

    @staticmethod
    def _keys(message: Incoming) -> Callable[[str], SeriesKey]:
        return lambda series: (message.device, message.module, series)

    def _look_for_model(self) -> bool:
        self._next_look = self._context.clock.monotonic() + self._settings.bundle_retry_secs
        try:
            self._take_model(self._load(self._settings))
        except (BundleError, NoBundle) as error:
            self._say_no_model(str(error))
            return False
        return True

    def _load(self, settings: Settings) -> LoadedModel:
        """The model that the settings ask for, tried out. The running one itself when it is that one."""
        bare = settings.bare_model if settings.allow_bare_model else None
        bundle = read_bundle(resolve_bundle(self._context.config_dir, settings.bundle), bare)
        if settings.bundle_digest not in (None, bundle.digest):
            raise BundleError("bundle_digest", f"the bundle is {bundle.digest}, pinned is {settings.bundle_digest}")
        if self._model is not None and self._model.digest == bundle.digest and self._model.manifest == bundle.manifest:
            return self._model
        return LoadedModel(bundle)

    def _take_model(self, model: LoadedModel) -> None:
        if model is self._model:
            return
        self._model = model
        self._context.health.clear(NO_MODEL)
        name, version = model.manifest.name, model.manifest.version
        self._log.info("model runs", extra=_fields(name=name, version=version, digest=model.digest))

    def _say_no_model(self, detail: str) -> None:
        if detail != self._no_model_detail:
            self._log.warning("no model", extra=_fields(reason=NO_MODEL, detail=detail))
        self._no_model_detail = detail
        self._context.health.set(NO_MODEL, detail)

    def _score_method(self, payload: object) -> object:
        """Readings in, rows out; windows are made of the payload's own rows and nothing is kept or sent on."""
        model = self._model
        if model is None:
            raise MethodError(503, f"there is no model: {self._no_model_detail}")
        try:
            elements = split(msgspec.json.encode(payload))
        except Unreadable as error:
            raise MethodError(400, f"a reading or an array of readings is expected: {error.detail}") from None
        rows = list(read_rows(elements, model.fields, fallback_series="", message_overhead=0))
        if bad := next((row for row in rows if isinstance(row, BadElement)), None):
            raise MethodError(400, f"row {bad.i}: {bad.detail}")
        empty = SeriesState.empty(len(model.feature_names))
        scored, _ = score_rows(model, [row for row in rows if isinstance(row, Row)], lambda _: empty)
        kept = ("i", "t", "series", "score", "threshold", "anomaly", "no_score", "why")
        return {
            "model": msgspec.to_builtins(model.identity),
            "rows": [{name: getattr(row, name) for name in kept} for row in scored],
        }

    def _model_info_method(self, payload: object) -> object:
        if self._model is None:
            raise MethodError(503, f"there is no model: {self._no_model_detail}")
        manifest = msgspec.to_builtins(self._model.manifest)
        return {"digest": self._model.digest, "manifest": manifest}


def _bundle_settings(settings: Settings) -> tuple[object, ...]:
    return settings.bundle, settings.bundle_digest, settings.allow_bare_model, settings.bare_model


def _fields(**fields: object) -> dict[str, object]:
    """What the log line says as key=value."""
    return {"fields": fields}
