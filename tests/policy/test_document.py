"""What a policy document may say, and how it is refused."""

# ruff: noqa: E501 - the table of refusals reads best with one case a line

import pytest

from policy import CODES, PolicyError, compile_policy
from tests.policy.documents import HEAD, policy_of, rule

ENVELOPE = "  device: {class: operational, transform: keep, lanes: [readings]}\n"


def refusal(text: str | bytes) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        compile_policy(text)
    assert caught.value.code in CODES
    return caught.value


FIELDS = HEAD + "fields:\n"
REFUSED: dict[str, tuple[str | bytes, str, str]] = {
    "no yaml": (HEAD + "fields: [", "not_yaml", ""),
    "empty": ("", "not_yaml", ""),
    "not utf-8": (b"\xff\xfe", "not_yaml", ""),
    "no mapping": ("- 1", "bad_value", ""),
    "another format": (HEAD.replace("edgeweir_policy: 1", "edgeweir_policy: 2") + "fields: []", "unsupported", "edgeweir_policy"),
    "format true": (HEAD.replace("edgeweir_policy: 1", "edgeweir_policy: true") + "fields: []", "unsupported", "edgeweir_policy"),
    "no format": (HEAD.replace("edgeweir_policy: 1\n", "") + "fields: []", "missing_key", "edgeweir_policy"),
    "no fields": (HEAD, "missing_key", "fields"),
    "key twice": (HEAD + "fields: []\nname: again\n", "duplicate_key", "name"),
    "key twice in a rule": (FIELDS + "  - {path: /a, path: /b, class: public, transform: drop}", "duplicate_key", "fields/0/path"),
    "unknown key": (HEAD + "fields: []\nfileds: []\n", "unknown_key", "fileds"),
    "unknown rule key": (FIELDS + rule("/a", lane="readings"), "unknown_key", "fields/0/lane"),
    "merge key": (FIELDS + "  - {<<: {path: /a}, class: public, transform: drop}", "not_yaml", "fields/0"),
    "python object": (HEAD + "fields: !!python/object/apply:os.getcwd []\n", "not_yaml", "fields"),
    "number as version": (HEAD.replace('"1"', "1") + "fields: []", "bad_value", "version"),
    "date as version": (HEAD.replace('"1"', "2026-11-23") + "fields: []", "bad_value", "version"),
    "rejected opened": (HEAD + "  rejected: {purpose: x}\nfields: []", "unknown_lane", "lanes/rejected"),
    "unknown lane": (FIELDS + rule("/a", lanes="reedings"), "unknown_lane", "fields/0/lanes/0"),
    "undeclared lane": (FIELDS.replace("  insights: {purpose: c}\n", "") + rule("/a", lanes="insights"), "unknown_lane", "fields/0/lanes/0"),
    "region": (HEAD.replace("{purpose: a}", "{purpose: a, regions: [x]}") + "fields: []", "unsupported", "lanes/readings/regions"),
    "group size": (HEAD.replace("{purpose: c}", "{purpose: c, min_group_size: 5}") + "fields: []", "unsupported", "lanes/insights/min_group_size"),
    "no purpose": (HEAD.replace("{purpose: a}", "{}") + "fields: []", "missing_key", "lanes/readings/purpose"),
    "mask": (FIELDS + rule("/a", "mask"), "unsupported", "fields/0/transform"),
    "bucket": (FIELDS + rule("/a", "bucket"), "unsupported", "fields/0/transform"),
    "truncate_time": (FIELDS + rule("/a", "truncate_time"), "unsupported", "fields/0/transform"),
    "pseudonymize": (FIELDS + rule("/a", "pseudonymize"), "unsupported", "fields/0/transform"),
    "unknown transform": (FIELDS + rule("/a", "kepe"), "bad_value", "fields/0/transform"),
    "unknown class": (FIELDS + rule("/a").replace("operational", "internal"), "bad_value", "fields/0/class"),
    "kept secret": (FIELDS + rule("/a").replace("operational", "secret"), "secret_released", "fields/0/transform"),
    "rounded secret": (FIELDS + rule("/a", "round", decimals=1).replace("operational", "secret"), "secret_released", "fields/0/transform"),
    "kept secret envelope": (HEAD + "fields: []\nenvelope:\n" + ENVELOPE.replace("operational", "secret"), "secret_released", "envelope/device/transform"),
    "keep without lanes": (FIELDS + "  - {path: /a, class: public, transform: keep}", "missing_key", "fields/0/lanes"),
    "keep with no lane": (FIELDS + rule("/a", lanes=""), "bad_value", "fields/0/lanes"),
    "drop with lanes": (FIELDS + "  - {path: /a, class: public, transform: drop, lanes: [readings]}", "bad_value", "fields/0/lanes"),
    "round without decimals": (FIELDS + rule("/a", "round"), "missing_key", "fields/0/decimals"),
    "too many decimals": (FIELDS + rule("/a", "round", decimals=13), "bad_value", "fields/0/decimals"),
    "decimals true": (FIELDS + rule("/a", "round", decimals="true"), "bad_value", "fields/0/decimals"),
    "decimals with keep": (FIELDS + rule("/a", decimals=1), "bad_value", "fields/0/decimals"),
    "no pointer": (FIELDS + rule("temperature"), "bad_path", "fields/0/path"),
    "whole reading": (FIELDS + "  - {path: '', class: public, transform: drop}", "bad_value", "fields/0/path"),
    "subtree inside": (FIELDS + rule("/a/**/b"), "bad_path", "fields/0/path"),
    "too deep": (FIELDS + rule("/a" * 17), "bad_path", "fields/0/path"),
    "same path twice": (FIELDS + rule("/a") + rule("/a", "drop"), "conflicting_rules", "fields/1/path"),
    "drop and its subtree": (FIELDS + rule("/a", "drop") + rule("/a/**"), "conflicting_rules", "fields/1/path"),
    "keys under a wildcard": (FIELDS + rule("/a/*"), "keys_not_released", "fields"),
    "keys under a subtree": (FIELDS + rule("/a/**"), "keys_not_released", "fields"),
    "keys for another lane": (
        FIELDS + rule("/a/*", lanes="readings, anomalies") + "keys:\n" + rule("/a/*", lanes="readings"),
        "keys_not_released", "fields",
    ),
    "keys rule without wildcard": (HEAD + "fields: []\nkeys:\n" + rule("/a/b"), "bad_path", "keys/0/path"),
    "rounded keys": (HEAD + "fields: []\nkeys:\n" + rule("/a/*", "round"), "bad_value", "keys/0/transform"),
    "wildcard in insights": (FIELDS + rule("/a/[]", lanes="insights"), "unsupported", "fields/0/lanes"),
    "unknown envelope part": (HEAD + "fields: []\nenvelope:\n" + ENVELOPE.replace("device", "devise"), "unknown_key", "envelope/devise"),
    "rounded envelope": (HEAD + "fields: []\nenvelope:\n  score: {class: public, transform: round, lanes: [readings]}", "unsupported", "envelope/score/transform"),
    "too long": (HEAD + "fields: []\n#" + "x" * 300_000, "too_large", ""),
    "too many in insights": (FIELDS + "".join(rule(f"/f{n}", lanes="insights") for n in range(201)), "too_large", "fields"),
    "line break in a name": (HEAD.replace("name: test", 'name: "a\\nb"') + "fields: []", "bad_value", "name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_document_that_cannot_be_enforced_is_refused_whole(case: str) -> None:
    text, code, path = REFUSED[case]
    error = refusal(text)
    assert (error.code, error.path) == (code, path), str(error)


def test_a_refusal_names_the_line() -> None:
    error = refusal(HEAD + "fields:\n" + rule("/a") + "\n" + rule("/b", "mask"))
    assert error.line == HEAD.count("\n") + 4
    assert str(error).startswith(f"unsupported at fields/1/transform (line {error.line}): mask")
    assert refusal("a: 1\nb: [").line == 2


def test_aliases_are_followed_but_cannot_blow_up_or_recurse() -> None:
    compile_policy(HEAD + "fields:\n" + rule("/a", lanes="readings").replace("[readings]", "&l [readings]")
                   + "  - {path: /b, class: public, transform: keep, lanes: *l}\n")  # fmt: skip
    assert refusal("a: &a [*a]").code == "too_large"
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 7))
    assert refusal(bomb).code == "too_large"


def test_the_hash_is_of_what_the_policy_does_and_not_of_how_it_is_written() -> None:
    one = policy_of(rule("/a"), rule("/b", "drop"))
    assert one.hash.startswith("sha256:")
    assert len(one.hash) == 71
    same = policy_of("# a comment\n", rule("/b", "drop", note="why"), rule("/a"))
    assert same.hash == one.hash
    others = [policy_of(rule("/a")), policy_of(rule("/a", lanes="anomalies"), rule("/b", "drop")),
              policy_of(rule("/a"), rule("/b", "drop"), envelope=ENVELOPE)]  # fmt: skip
    assert len({one.hash, *(other.hash for other in others)}) == 4


def test_an_explanation_names_rules_and_never_values() -> None:
    policy = policy_of(rule("/a"), rule("/b", "round", decimals=1), rule("/c/**", "drop"))
    reading = {"a": "keepsake", "b": "not-a-number", "c": {"d": "hidden"}, "e": {}, "f": 4711}
    explained = {each.field: (each.decision, each.lanes) for each in policy.explain(reading)}
    assert explained == {
        "/a": ("keep", ("readings",)),
        "/b": ("denied: not a number to round", ()),
        "/c/d": ("drop", ()),
        "/e": ("denied: empty", ()),
        "/f": ("denied: no rule names it", ()),
    }
    assert not any(value in str(policy.explain(reading)) for value in ("keepsake", "not-a-number", "hidden", "4711"))
