"""What would happen to a reading, field by field: names and decisions, never values."""

from collections.abc import Iterator
from typing import Final

import msgspec

from contract.lanes import Lane
from policy.paths import Element, Step, place_text
from policy.plan import VALUE_DEPTH_LIMIT
from policy.rules import Rule, Rules, claims
from policy.vocabulary import OPEN_LANES

FIELDS_LIMIT: Final = 200


class FieldDecision(msgspec.Struct, frozen=True, omit_defaults=True):
    """`rule` is the pattern that decided, absent where none did; `lanes` are those that carry the field."""

    field: str
    decision: str
    lanes: tuple[Lane, ...] = ()
    rule: str | None = None
    field_class: str | None = msgspec.field(default=None, name="class")


def deciding_rule(rules: Rules, place: tuple[Step, ...]) -> Rule | None:
    """The slow and plain statement of what `plan` compiles."""
    candidates = [
        (pattern.specificity, rule) for rule in rules.fields for pattern in claims(rule) if pattern.matches(place)
    ]
    return min(candidates, key=lambda item: item[0])[1] if candidates else None


def explain_fields(rules: Rules, reading: object) -> list[FieldDecision]:
    """One decision per plain value of the reading, in its order; at most 200."""
    decisions: list[FieldDecision] = []
    for place, value in _leaves(reading, ()):
        if len(decisions) == FIELDS_LIMIT:
            break
        decisions.append(_decide(rules, place, value))
    return decisions


def _decide(rules: Rules, place: tuple[Step, ...], value: object) -> FieldDecision:
    name = place_text(place)
    rule = deciding_rule(rules, place)
    if len(place) > VALUE_DEPTH_LIMIT:
        return FieldDecision(name, "denied: nested too deeply")
    if isinstance(value, dict | list):
        return FieldDecision(name, "denied: empty")
    if rule is None:
        return FieldDecision(name, "denied: no rule names it")
    if not rule.releases:
        return FieldDecision(name, "drop", rule=rule.pattern.text, field_class=rule.field_class)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if rule.transform == "round" and not is_number:
        return FieldDecision(
            name, "denied: not a number to round", rule=rule.pattern.text, field_class=rule.field_class
        )
    decision = f"round to {rule.decimals} decimals" if rule.transform == "round" else rule.transform
    lanes = tuple(lane for lane in OPEN_LANES if lane in rule.lanes)
    return FieldDecision(name, decision, lanes, rule.pattern.text, rule.field_class)


def _leaves(value: object, place: tuple[Step, ...]) -> Iterator[tuple[tuple[Step, ...], object]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*place, Element(index)))
    else:
        yield place, value
