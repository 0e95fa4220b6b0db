"""Twins through the hub: what clients read and report, what operators desire, and when a client hears of it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from simulator.runtime.connection import Connection
from simulator.runtime.timing import TWIN_SYNC_INTERVAL_SECS, Pace
from simulator.runtime.topics import TwinGet, TwinPatch, desired_topic, twin_response_topic
from simulator.runtime.twin_store import TwinStore
from simulator.runtime.twins import (
    BadPatch,
    JsonObject,
    Twin,
    check_reported,
    difference,
    for_client,
    merge,
    without_markers,
)


class TwinService:
    """A desired change is pushed once, to a client that is there and subscribed; it is never queued."""

    def __init__(self, twins: TwinStore, find: Callable[[str], Connection | None], pace: Pace) -> None:
        self._twins = twins
        self._find = find
        self._interval_secs = pace(TWIN_SYNC_INTERVAL_SECS)
        self._synced_at: dict[str, float] = {}

    # --- for clients -------------------------------------------------------------------------------------------------

    def answer_get(self, connection: Connection, request: TwinGet) -> None:
        twin = self._twins.get(connection.client_id)
        self._mark_synced(connection.client_id, twin)
        body = msgspec.json.encode(for_client(twin))
        connection.publish(twin_response_topic(200, request.rid), body)

    def report(self, client_id: str, payload: bytes) -> int:
        """Takes a reported patch; the status edgeHub answers: 204, 400 for a rule broken, 500 for no JSON."""
        twin = self._twins.get(client_id)
        try:
            patch = check_reported(msgspec.json.decode(payload), twin.reported)
        except BadPatch:
            return 400
        except (msgspec.DecodeError, UnicodeDecodeError):
            return 500
        self.merge_reported(client_id, patch)
        return 204

    @staticmethod
    def answer_patch(connection: Connection, request: TwinPatch, status: int) -> None:
        """An empty body and no `$version`, unlike the cloud's answer; without a `$rid` nobody is told."""
        if request.rid:
            connection.publish(twin_response_topic(status, request.rid), b"", "twin_answered")

    def sync_after_connect(self, connection: Connection) -> None:
        """Pushes, once, what changed while the client was away; at most one such push in two minutes."""
        client_id = connection.client_id
        twin = self._twins.get(client_id)
        if twin.synced is None or not connection.features.desired:
            return
        patch = difference(twin.synced, twin.desired)
        last = self._synced_at.get(client_id)
        if not patch or (last is not None and time.monotonic() - last < self._interval_secs):
            return
        self._synced_at[client_id] = time.monotonic()
        self._push(connection, twin, patch)

    # --- for operators and the hub itself ----------------------------------------------------------------------------

    def get(self, client_id: str) -> Twin:
        return self._twins.get(client_id)

    def patch_desired(self, client_id: str, patch: Mapping[str, Any]) -> Twin:
        """Merges, raises the version, pushes the patch as it was given."""
        patch = without_markers(patch)
        return self._change_desired(client_id, merge(self.get(client_id).desired, patch), patch)

    def replace_desired(self, client_id: str, desired: Mapping[str, Any]) -> Twin:
        """Replaces, raises the version, pushes the difference (an empty one too: the version is news)."""
        desired = without_markers(desired)
        return self._change_desired(client_id, desired, difference(self.get(client_id).desired, desired))

    def merge_reported(self, client_id: str, patch: Mapping[str, Any]) -> Twin:
        twin = self._twins.get(client_id)
        changed = msgspec.structs.replace(
            twin, reported=merge(twin.reported, patch), reported_version=twin.reported_version + 1
        )
        self._twins.put(client_id, changed)
        return changed

    def set_tags(self, client_id: str, tags: JsonObject) -> Twin:
        changed = msgspec.structs.replace(self._twins.get(client_id), tags=tags)
        self._twins.put(client_id, changed)
        return changed

    def delete(self, client_id: str) -> None:
        self._twins.delete(client_id)

    def _change_desired(self, client_id: str, desired: JsonObject, patch: JsonObject) -> Twin:
        twin = self._twins.get(client_id)
        changed = msgspec.structs.replace(twin, desired=desired, desired_version=twin.desired_version + 1)
        self._twins.put(client_id, changed)
        connection = self._find(client_id)
        if connection is not None and connection.features.desired:
            self._push(connection, changed, patch)
        return self._twins.get(client_id)

    def _push(self, connection: Connection, twin: Twin, patch: JsonObject) -> None:
        body = msgspec.json.encode(patch | {"$version": twin.desired_version})
        if connection.publish(desired_topic(twin.desired_version), body):
            self._mark_synced(connection.client_id, twin)

    def _mark_synced(self, client_id: str, twin: Twin) -> None:
        if twin.synced != twin.desired:
            self._twins.put(client_id, msgspec.structs.replace(twin, synced=twin.desired))
