"""A compiled policy."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from msgspec import Raw

from contract.lanes import Lane
from contract.messages import ScoredRow, Source
from policy.envelope import ENVELOPE
from policy.explain import FieldDecision, explain_fields
from policy.lane import LanePolicy
from policy.rules import Rule, Rules, parse_rules
from policy.vocabulary import FORMAT, OPEN_LANES


class Policy:
    """Immutable; equal documents have equal hashes, whatever their layout, order, comments and notes."""

    def __init__(self, rules: Rules) -> None:
        self.rules: Final = rules
        self.name: Final = rules.name
        self.version: Final = rules.version
        self.compiled: Final = canonical_json(rules)
        self.hash: Final = "sha256:" + sha256(self.compiled.encode()).hexdigest()
        self.lanes: Final[Mapping[Lane, LanePolicy]] = {lane: LanePolicy(lane, rules) for lane in OPEN_LANES}

    def row(self, lane: Lane, row: ScoredRow, source: Source, fields: Mapping[str, Raw] | None = None) -> bytes:
        """What of the row may leave on the lane, as a compliant row's JSON. See `LanePolicy.row`."""
        return self.lanes[lane].row(source, row, fields)

    def explain(self, reading: object) -> list[FieldDecision]:
        """What would happen to each field of this decoded reading. Names and decisions, never values."""
        return explain_fields(self.rules, reading)

    def envelope(self) -> dict[str, list[Lane]]:
        """Which lanes carry each part of the envelope."""
        return {name: _ordered(self.rules.envelope[name].lanes) for name in ENVELOPE}


def compile_policy(text: str | bytes) -> Policy:
    """Raises PolicyError: the document is taken whole or not at all."""
    return Policy(parse_rules(text))


def canonical_json(rules: Rules) -> str:
    """The policy in the one form that its hash is taken of: keys sorted, no spaces, ASCII, every default written out.

    `description` and `note` are not part of it: they do not change what leaves.
    """
    document = {
        "edgeweir_policy": FORMAT,
        "name": rules.name,
        "version": rules.version,
        "lanes": {lane: {"purpose": purpose} for lane, purpose in rules.lanes.items()},
        "envelope": {
            name: {"class": part.field_class, "lanes": _ordered(part.lanes)} for name, part in rules.envelope.items()
        },
        "fields": [_rule_document(rule) for rule in rules.fields],
        "keys": [_rule_document(rule) for rule in rules.keys],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _rule_document(rule: Rule) -> dict[str, object]:
    document: dict[str, object] = {
        "path": rule.pattern.text,
        "class": rule.field_class,
        "transform": rule.transform,
        "lanes": _ordered(rule.lanes),
    }
    if rule.transform == "round":
        document["decimals"] = rule.decimals
    if rule.feature is not None:
        document["feature"] = rule.feature
    return document


def _ordered(lanes: frozenset[Lane]) -> list[Lane]:
    return [lane for lane in OPEN_LANES if lane in lanes]
