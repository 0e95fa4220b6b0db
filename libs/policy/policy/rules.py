"""What a policy document may say: its keys, their types, and the rules that contradict each other.

`docs/policy.md` is the author's page; the two are kept in step by a test. What this version cannot enforce it refuses
(`unsupported`): a restriction that is read and then ignored would be worse than none.
"""

from typing import Final, Literal, NoReturn, cast

import msgspec

from contract.lanes import Lane
from policy.document import Document, Path, Plain
from policy.envelope import ENVELOPE, Transmission
from policy.paths import SUBTREE, Pattern, parse_pattern
from policy.vocabulary import (
    CLASSES,
    DECIMALS,
    FORMAT,
    LATER_LANE_KEYS,
    LATER_TRANSFORMS,
    OPEN_LANES,
    TRANSFORMS,
    FieldClass,
    Transform,
)

RULES_LIMIT: Final = 1_000
TEXT_LIMIT: Final = 500
# One window with all its aggregates must fit into one message.
AGGREGATES_LIMIT: Final = 200


class Rule(msgspec.Struct, frozen=True):
    """What happens to the values (or, in `keys`, to the key names) that a pattern matches."""

    pattern: Pattern
    field_class: FieldClass
    transform: Transform
    lanes: frozenset[Lane] = frozenset()
    decimals: int = 0
    feature: str | None = None

    @property
    def releases(self) -> bool:
        return self.transform != "drop"


class Rules(msgspec.Struct, frozen=True):
    """A document whose every part was checked. `lanes` maps each open lane to its purpose."""

    name: str
    version: str
    lanes: dict[Lane, str]
    envelope: dict[str, Transmission]
    fields: tuple[Rule, ...]
    keys: tuple[Rule, ...]


def parse_rules(text: str | bytes) -> Rules:
    """Raises PolicyError."""
    return _Reader(Document(text)).rules()


class _Reader:
    """Walks one document; every refusal names the place and its line."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def rules(self) -> Rules:
        root = self._mapping((), self._document.root)
        if root.get("edgeweir_policy", FORMAT) != FORMAT or isinstance(root.get("edgeweir_policy"), bool):
            self._refuse("unsupported", ("edgeweir_policy",), f"this version reads format {FORMAT}")
        self._check_keys(
            (), root, required=("edgeweir_policy", "name", "version", "lanes", "fields"),
            optional=("description", "envelope", "keys"),
        )  # fmt: skip
        self._text(("description",), root.get("description", "-"))
        lanes = self._lanes(root["lanes"])
        keys = self._rule_list("keys", root.get("keys", []), lanes)
        fields = self._rule_list("fields", root["fields"], lanes)
        self._check_key_names(fields, keys)
        if sum("insights" in rule.lanes for rule in fields) > AGGREGATES_LIMIT:
            self._refuse("too_large", ("fields",), f"at most {AGGREGATES_LIMIT} fields in lane insights")
        return Rules(
            name=self._text(("name",), root["name"]),
            version=self._text(("version",), root["version"]),
            lanes=lanes,
            envelope=self._envelope(root.get("envelope", {}), lanes),
            fields=fields,
            keys=keys,
        )

    def _lanes(self, value: Plain) -> dict[Lane, str]:
        purposes: dict[Lane, str] = {}
        for name, section in self._mapping(("lanes",), value).items():
            path: Path = ("lanes", name)
            if name not in OPEN_LANES:
                known = ", ".join(OPEN_LANES)
                self._refuse("unknown_lane", path, f"a policy opens {known}; `rejected` never leaves the site")
            body = self._mapping(path, section)
            for key in LATER_LANE_KEYS:
                if key in body:
                    self._refuse("unsupported", (*path, key), f"{key} is not supported by this version")
            self._check_keys(path, body, required=("purpose",), optional=())
            purposes[name] = self._text((*path, "purpose"), body["purpose"])
        return {lane: purposes[lane] for lane in OPEN_LANES if lane in purposes}

    def _envelope(self, value: Plain, lanes: dict[Lane, str]) -> dict[str, Transmission]:
        result = {name: Transmission.default(name, frozenset(lanes)) for name in ENVELOPE}
        for name, section in self._mapping(("envelope",), value).items():
            path: Path = ("envelope", name)
            if name not in ENVELOPE:
                self._refuse("unknown_key", path, f"the envelope has {', '.join(ENVELOPE)}")
            body = self._mapping(path, section)
            self._check_keys(path, body, required=("class", "transform"), optional=("lanes", "note"))
            field_class, transform = self._class_and_transform(path, body)
            if transform == "round":
                self._refuse("unsupported", (*path, "transform"), "round is not supported for the envelope")
            self._text((*path, "note"), body.get("note", "-"))
            result[name] = Transmission(field_class, self._rule_lanes(path, body, transform, lanes))
        return result

    def _rule_list(self, section: Literal["fields", "keys"], value: Plain, lanes: dict[Lane, str]) -> tuple[Rule, ...]:
        if not isinstance(value, list):
            self._refuse("bad_value", (section,), "this is a list of rules")
        if len(value) > RULES_LIMIT:
            self._refuse("too_large", (section,), f"at most {RULES_LIMIT} rules")
        claimed: dict[Pattern, int] = {}
        rules = []
        for n, item in enumerate(value):
            path: Path = (section, n)
            rule = self._key_rule(path, item, lanes) if section == "keys" else self._field_rule(path, item, lanes)
            for pattern in claims(rule) if section == "fields" else (rule.pattern,):
                if pattern in claimed:
                    other = f"{section}/{claimed[pattern]}"
                    self._refuse("conflicting_rules", (*path, "path"), f"{pattern.text} is ruled by {other}")
                claimed[pattern] = n
            rules.append(rule)
        return tuple(sorted(rules, key=lambda rule: rule.pattern.tokens))

    def _field_rule(self, path: Path, value: Plain, lanes: dict[Lane, str]) -> Rule:
        body = self._mapping(path, value)
        self._check_keys(
            path, body, required=("path", "class", "transform"), optional=("decimals", "lanes", "feature", "note")
        )
        pattern = self._pattern((*path, "path"), body["path"])
        field_class, transform = self._class_and_transform(path, body)
        self._text((*path, "note"), body.get("note", "-"))
        released = self._rule_lanes(path, body, transform, lanes)
        if "insights" in released and pattern.has_wildcard:
            self._refuse(
                "unsupported", (*path, "lanes"), "lane insights aggregates exact paths only, not those of a wildcard"
            )
        return Rule(
            pattern=pattern,
            field_class=field_class,
            transform=transform,
            lanes=released,
            decimals=self._decimals(path, body, transform),
            feature=self._text((*path, "feature"), body["feature"]) if "feature" in body else None,
        )

    def _key_rule(self, path: Path, value: Plain, lanes: dict[Lane, str]) -> Rule:
        body = self._mapping(path, value)
        self._check_keys(path, body, required=("path", "class", "transform"), optional=("lanes", "note"))
        pattern = self._pattern((*path, "path"), body["path"])
        if pattern.tokens[-1] not in ("*", SUBTREE):
            self._refuse("bad_path", (*path, "path"), "a rule for keys ends in the wildcard whose keys it is about")
        field_class, transform = self._class_and_transform(path, body)
        if transform == "round":
            self._refuse("bad_value", (*path, "transform"), "a key cannot be rounded")
        self._text((*path, "note"), body.get("note", "-"))
        return Rule(pattern, field_class, transform, self._rule_lanes(path, body, transform, lanes))

    def _check_key_names(self, fields: tuple[Rule, ...], keys: tuple[Rule, ...]) -> None:
        released = {rule.pattern: rule.lanes for rule in keys if rule.releases}
        for rule in fields:
            for prefix in rule.pattern.key_wildcards() if rule.releases else []:
                missing = rule.lanes - released.get(prefix, frozenset())
                if missing:
                    names = ", ".join(sorted(missing))
                    self._refuse(
                        "keys_not_released",
                        ("fields",),
                        f"{rule.pattern.text} would let out the keys that {prefix.text} matches (lanes {names}); "
                        "keys count as values, so name that path under `keys` too",
                    )

    def _class_and_transform(self, path: Path, body: dict[str, Plain]) -> tuple[FieldClass, Transform]:
        field_class, transform = body["class"], body["transform"]
        if field_class not in CLASSES:
            self._refuse("bad_value", (*path, "class"), f"one of {', '.join(CLASSES)}")
        if transform in LATER_TRANSFORMS:
            self._refuse("unsupported", (*path, "transform"), f"{transform} is not supported by this version")
        if transform not in TRANSFORMS:
            self._refuse("bad_value", (*path, "transform"), f"one of {', '.join(TRANSFORMS)}")
        if field_class == "secret" and transform != "drop":
            self._refuse("secret_released", (*path, "transform"), "a field of class secret can only be dropped")
        return field_class, transform

    def _rule_lanes(
        self, path: Path, body: dict[str, Plain], transform: Transform, declared: dict[Lane, str]
    ) -> frozenset[Lane]:
        if transform == "drop":
            if "lanes" in body:
                self._refuse("bad_value", (*path, "lanes"), "drop is for every lane; leave `lanes` away")
            return frozenset()
        value = body.get("lanes")
        if value is None:
            self._refuse("missing_key", (*path, "lanes"), "say which lanes may carry it")
        if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
            self._refuse("bad_value", (*path, "lanes"), "a list of one lane or more")
        for n, name in enumerate(value):
            if name not in declared:
                self._refuse("unknown_lane", (*path, "lanes", n), f"{name} is not declared under `lanes`")
        return frozenset(cast(list[Lane], value))

    def _decimals(self, path: Path, body: dict[str, Plain], transform: Transform) -> int:
        value = body.get("decimals")
        if transform != "round":
            if value is not None:
                self._refuse("bad_value", (*path, "decimals"), "decimals belong to transform round")
            return 0
        if value is None:
            self._refuse("missing_key", (*path, "decimals"), "say how many decimals stay")
        if not isinstance(value, int) or isinstance(value, bool) or value not in DECIMALS:
            self._refuse("bad_value", (*path, "decimals"), f"a whole number from {DECIMALS[0]} to {DECIMALS[-1]}")
        return value

    def _pattern(self, path: Path, value: Plain) -> Pattern:
        try:
            return parse_pattern(self._text(path, value))
        except ValueError as error:
            self._refuse("bad_path", path, str(error))

    def _text(self, path: Path, value: Plain) -> str:
        if not isinstance(value, str):
            self._refuse("bad_value", path, "this is a text; put it in quotes")
        if not value or len(value) > TEXT_LIMIT or not value.isprintable():
            self._refuse("bad_value", path, f"one line of 1 to {TEXT_LIMIT} printable characters")
        return value

    def _mapping(self, path: Path, value: Plain) -> dict[str, Plain]:
        if not isinstance(value, dict):
            self._refuse("bad_value", path, "this is a mapping of keys to values")
        return value

    def _check_keys(
        self, path: Path, body: dict[str, Plain], *, required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        for key in body:
            if key not in required and key not in optional:
                self._refuse("unknown_key", (*path, key), f"known here: {', '.join((*required, *optional))}")
        for key in required:
            if key not in body:
                self._refuse("missing_key", (*path, key), f"{key} must be there")

    def _refuse(self, code: str, path: Path, detail: str) -> NoReturn:
        self._document.refuse(code, path, detail)


def claims(rule: Rule) -> tuple[Pattern, ...]:
    """The patterns that a field rule decides: a drop covers what it names and everything below."""
    tokens = rule.pattern.tokens
    if rule.releases or tokens[-1] == SUBTREE:
        return (rule.pattern,)
    return (rule.pattern, Pattern((*tokens, SUBTREE)))
