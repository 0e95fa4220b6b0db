"""What of a reading's own text may leave."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from policy import NotAnObject, members
from policy.explain import deciding_rule
from policy.paths import Element, Step, parse_pattern
from tests.policy.documents import policy_of, released, rule, scored


def test_a_field_that_no_rule_names_does_not_leave() -> None:
    assert released(policy_of(rule("/a")), '{"a": 1, "b": 2}') == '{"a":1}'
    assert released(policy_of(), '{"a": 1}') is None


@pytest.mark.parametrize("text", ["1.10", "-0", "1E+05", "123456789012345678901234567890", '"1.10"', "true", "null"])
def test_keep_carries_the_senders_own_text(text: str) -> None:
    assert released(policy_of(rule("/a")), '{ "a" :  ' + text + " }") == '{"a":' + text + "}"


def test_a_lane_carries_only_the_fields_whose_rule_names_it() -> None:
    policy = policy_of(rule("/a", lanes="readings"), rule("/b", lanes="anomalies"))
    assert released(policy, '{"a":1,"b":2}', "readings") == '{"a":1}'
    assert released(policy, '{"a":1,"b":2}', "anomalies") == '{"b":2}'


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        ('{"a":"denied-then-not","secret":1,"a":2}', '{"a":2}'),
        ('{"secret":1,"secret":2}', None),
        (r'{"a":1,"\u0061":2}', '{"a":2}'),
        (r'{"s\u0065cret":1}', None),
        ('{"n":{"x":1},"n":{"y":2}}', None),
        ('{"n":{"y":1,"x":2,"y":3}}', '{"n":{"x":2}}'),
    ],
)
def test_of_a_key_that_stands_twice_only_the_last_value_exists(reading: str, expected: str | None) -> None:
    assert released(policy_of(rule("/a"), rule("/n/x")), reading) == expected


def test_keep_of_a_path_lets_no_object_or_array_out() -> None:
    policy = policy_of(rule("/a"))
    assert released(policy, '{"a": {"b": 1}}') is None
    assert released(policy, '{"a": [1]}') is None


def test_a_container_of_which_nothing_may_leave_is_absent() -> None:
    policy = policy_of(rule("/a/x"), rule("/list/[]/x"))
    assert released(policy, '{"a":{"y":1},"list":[{"y":1},{"x":2,"y":3},{}]}') == '{"list":[{"x":2}]}'


def test_a_subtree_rule_lets_all_plain_values_below_out_except_what_is_dropped() -> None:
    policy = policy_of(
        rule("/m/**"), rule("/m/operator", "drop"), rule("/m/operator/shift"),
        keys=["  - {path: '/m/**', class: public, transform: keep, lanes: [readings]}\n"],
    )  # fmt: skip
    reading = '{"m":{"a":1,"b":[1,[2]],"operator":{"name":"x","shift":2}},"n":1}'
    assert released(policy, reading) == '{"m":{"a":1,"b":[1,[2]],"operator":{"shift":2}}}'


def test_a_drop_covers_what_becomes_an_object_later() -> None:
    policy = policy_of(
        rule("/**"), rule("/operator", "drop"),
        keys=["  - {path: '/**', class: public, transform: keep, lanes: [readings]}\n"],
    )  # fmt: skip
    assert released(policy, '{"operator":{"name":{"first":"x"}},"a":1}') == '{"a":1}'
    assert released(policy, '{"operator":["x"]}') is None


def test_star_is_for_keys_and_brackets_are_for_elements() -> None:
    keys = ["  - {path: '/a/*', class: public, transform: keep, lanes: [readings]}\n"]
    assert released(policy_of(rule("/a/*"), keys=keys), '{"a":{"k":1}}') == '{"a":{"k":1}}'
    assert released(policy_of(rule("/a/*"), keys=keys), '{"a":[1]}') is None
    assert released(policy_of(rule("/a/[]")), '{"a":[1,2]}') == '{"a":[1,2]}'
    assert released(policy_of(rule("/a/[]")), '{"a":{"[]":1,"0":2}}') is None
    assert released(policy_of(rule("/a/0")), '{"a":[1]}') is None


def test_the_more_specific_rule_decides() -> None:
    keys = ["  - {path: '/*', class: public, transform: keep, lanes: [readings]}\n"]
    policy = policy_of(rule("/*"), rule("/speed", "round", decimals=0), rule("/operator", "drop"), keys=keys)
    assert released(policy, '{"x":1.25,"speed":1.75,"operator":3}') == '{"x":1.25,"speed":2}'


def test_keys_with_pointer_escapes_and_quotes_are_named_and_written_right() -> None:
    reading = r'{"a/b":1,"c~d":2,"\"":3,"é":4}'
    assert released(policy_of(rule("/a~1b"), rule("/c~0d"), rule("/é")), reading) == '{"a/b":1,"c~d":2,"é":4}'


def test_what_is_nested_too_deeply_does_not_leave() -> None:
    keys = ["  - {path: '/**', class: public, transform: keep, lanes: [readings]}\n"]
    policy = policy_of(rule("/**"), keys=keys)
    assert released(policy, '{"a":' * 64 + "1" + "}" * 64) is not None
    assert released(policy, '{"a":' * 65 + "1" + "}" * 65) is None
    assert released(policy, '{"a":' + "[" * 700 + "1" + "]" * 700 + "}") is None


@pytest.mark.parametrize("reading", ["1", "[]", '"x"', "null"])
def test_a_reading_that_is_no_object_lets_nothing_out(reading: str) -> None:
    with pytest.raises(NotAnObject):
        members(Raw(reading.encode()))
    assert released(policy_of(rule("/a")), reading) is None


# Compiled and plain form agree

_token = st.sampled_from(["a", "b", "*", "[]"])
_patterns = st.lists(st.tuples(st.lists(_token, min_size=1, max_size=3), st.booleans(), st.booleans()), max_size=5)
_values = st.recursive(
    st.integers(0, 9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(_patterns, st.dictionaries(st.sampled_from("abc"), _values, max_size=3))
def test_the_compiled_rules_decide_as_the_plain_statement_of_them(
    patterns: list[tuple[list[str], bool, bool]], reading: dict[str, object]
) -> None:
    fields: dict[str, bool] = {}
    for tokens, subtree, keeps in patterns:
        path = "/" + "/".join([*tokens, "**"] if subtree else tokens)
        partner = path.removesuffix("/**") if subtree else path + "/**"
        if partner not in fields:  # a drop and a rule for its subtree are refused together
            fields.setdefault(path, keeps)
    keys = {prefix.text for path in fields for prefix in parse_pattern(path).key_wildcards()}
    policy = policy_of(
        *(rule(path, "keep" if keeps else "drop") for path, keeps in fields.items()),
        keys=[f"  - {{path: '{path}', class: public, transform: keep, lanes: [readings]}}\n" for path in sorted(keys)],
    )

    def expected(value: object, place: tuple[Step, ...]) -> object:
        """The value with only what the deciding rules let out; None when nothing may."""
        if isinstance(value, dict):
            members_ = {key: expected(inner, (*place, key)) for key, inner in value.items()}
            return {key: kept for key, kept in members_.items() if kept is not None} or None
        if isinstance(value, list):
            elements = [expected(inner, (*place, Element(n))) for n, inner in enumerate(value)]
            return [kept for kept in elements if kept is not None] or None
        decided = deciding_rule(policy.rules, place)
        return value if decided is not None and decided.releases else None

    text = released(policy, msgspec.json.encode(reading).decode())
    assert (None if text is None else msgspec.json.decode(text)) == expected(reading, ())


def test_a_rounded_field_that_is_no_number_does_not_leave() -> None:
    policy = policy_of(rule("/a", "round", decimals=1))
    for text in ('"12.34"', "true", "null", "[1.25]", '{"b":1.25}'):
        assert released(policy, '{"a":' + text + "}") is None
    assert released(policy, '{"a":1.25}') == '{"a":1.2}'


def test_aggregated_numbers_are_those_after_the_transform() -> None:
    policy = policy_of(
        rule("/a", lanes="insights"),
        rule("/b/c", "round", lanes="insights", decimals=1),
        rule("/d", lanes="readings"),
    )
    fields = members(scored('{"a":1.10,"b":{"c":1.25},"d":3}').reading)
    assert [(field.name, value) for field, value in policy.lanes["insights"].numbers(fields)] == [
        ("a", 1.1),
        ("b/c", 1.2),
    ]
    odd = members(scored('{"a":"1","b":{"c":1e999}}').reading)
    assert list(policy.lanes["insights"].numbers(odd)) == []
