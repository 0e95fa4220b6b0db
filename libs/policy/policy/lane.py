"""What one lane may carry: rows, parts of the envelope, and numbers to aggregate."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import Raw

from contract.lanes import Lane
from contract.messages import CompliantRow, ScoredRow, Source
from policy.envelope import ENVELOPE, OTHER
from policy.plan import NotAnObject, apply, compile_plan, members
from policy.rules import Rule, Rules
from policy.transforms import Action, Round, is_number, keep

# Sums of numbers up to here cannot overflow a double, however many rows a window has.
LARGEST_AGGREGATED: Final = 1e300
_ENCODE: Final[Callable[[object], bytes]] = msgspec.json.Encoder().encode


class NumericField(NamedTuple):
    """A field that the lane aggregates. `treatment` changes whenever the transform does."""

    name: str
    treatment: str
    tokens: tuple[str, ...]
    action: Action


class LanePolicy:
    """Immutable. Everything that depends on the policy alone is computed once."""

    def __init__(self, lane: Lane, rules: Rules) -> None:
        released = [rule for rule in rules.fields if rule.releases and lane in rule.lanes]
        self.lane = lane
        self.is_open = lane in rules.lanes
        self._carried = frozenset(name for name in ENVELOPE if lane in rules.envelope[name].lanes)
        self._plan = compile_plan(
            (rule.pattern.tokens, _action(rule) if rule.releases and lane in rule.lanes else None)
            for rule in rules.fields
        )
        self._features = frozenset(_feature_name(rule) for rule in released)
        self.numeric_fields = tuple(_numeric_field(rule) for rule in released if not rule.pattern.has_wildcard)

    def carries(self, name: str) -> bool:
        """Whether this part of the envelope (`policy.envelope`) leaves on this lane."""
        return name in self._carried

    def row(self, source: Source, row: ScoredRow, fields: Mapping[str, Raw] | None = None) -> bytes:
        """The compliant row's JSON (`contract.messages.CompliantRow`).

        `fields` is `members(row.reading)`, for a caller that has it already; a reading that is no object lets nothing
        of itself out.
        """
        if fields is None:
            try:
                fields = members(row.reading)
            except NotAnObject:
                fields = {}
        reading = apply(self._plan, fields)
        carried = self._carried
        return _ENCODE(
            CompliantRow(
                device=source.device if "device" in carried else None,
                module=source.module if "module" in carried else None,
                message=source.message if "message" in carried else None,
                i=row.i if "i" in carried else None,
                t=row.t if "t" in carried else None,
                series=row.series if "series" in carried else None,
                score=row.score if "score" in carried else None,
                threshold=row.threshold if "threshold" in carried else None,
                anomaly=row.anomaly if "anomaly" in carried else None,
                no_score=row.no_score if "no_score" in carried else None,
                why=self.why(row.why) if "why" in carried and row.why else None,
                enqueued=source.enqueued if "enqueued" in carried else None,
                reading=Raw(reading) if reading is not None else None,
            )
        )

    def why(self, shares: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """The shares of features whose field may leave; all others are one share named `other`, at the end."""
        shown = [share for share in shares if share[0] in self._features]
        if len(shown) == len(shares):
            return shown
        rest = sum(share for name, share in shares if name not in self._features)
        return [*shown, (OTHER, float(f"{rest:.9g}"))]

    def numbers(self, fields: Mapping[str, Raw]) -> Iterator[tuple[NumericField, float]]:
        """The values to aggregate, after the transform. Of magnitude up to 1e300; larger ones are left out."""
        for field in self.numeric_fields:
            raw = fields.get(field.tokens[0]) if len(field.tokens) == 1 else _descend(fields, field.tokens)
            if raw is None or not is_number(text := bytes(raw)):
                continue
            after = field.action(text)
            if after is not None and -LARGEST_AGGREGATED <= (value := float(after)) <= LARGEST_AGGREGATED:
                yield field, value


def _descend(fields: Mapping[str, Raw], tokens: tuple[str, ...]) -> Raw | None:
    for token in tokens[:-1]:
        inner = fields.get(token)
        if inner is None:
            return None
        try:
            fields = members(inner)
        except NotAnObject:
            return None
    return fields.get(tokens[-1])


def _action(rule: Rule) -> Action:
    return Round(rule.decimals) if rule.transform == "round" else keep


def _numeric_field(rule: Rule) -> NumericField:
    treatment = f"round:{rule.decimals}" if rule.transform == "round" else rule.transform
    return NumericField(rule.pattern.text[1:], treatment, rule.pattern.tokens, _action(rule))


def _feature_name(rule: Rule) -> str:
    """How `why` names the feature made of this field: the rule says, or it is the path's last key."""
    return rule.feature if rule.feature is not None else rule.pattern.tokens[-1]
