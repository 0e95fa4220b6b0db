"""Truth tables of route conditions. They follow edgeHub's ConditionCompilerTest and BodyQueryTest."""

import json

import pytest

from simulator.runtime.messages import Message
from simulator.runtime.routing.conditions import _term, compile_condition
from simulator.runtime.routing.errors import RouteCompileError, RouteSyntaxError
from simulator.runtime.routing.parser import parse_route
from simulator.runtime.routing.subject import Subject

APP: dict[str, str | None] = {
    "key1": "value1",
    "key2": "3",
    "key3": "VALUE3",
    "null_value": None,
    "$sys4": "value4",
    "City": "Redmond",
    "$State": "WA",
    "$body.conflict": "100",
}
SYSTEM = {
    "sys1": "sysvalue1",
    "sys2": "4",
    "sys4": "sysvalue4",
    "State": "CA",
    "contentType": "application/JSON",
    "contentEncoding": "UTF-8",
}
BODY = {
    "t": 50,
    "minus": -50.4,
    "precise": 50.4,
    "conflict": 50,
    "nul": None,
    "time": "2017-03-09T00:00:00.000Z",
    "list": [20, 30, 40],
    "yes": True,
    "no": False,
    "place": {"street": "One Microsoft Way", "city": "Redmond", "state": "WA"},
    "history": [{"month": "Feb", "t": 40}, {"month": "Jan", "t": 30}],
}
MESSAGE = Message("/messages/", APP, SYSTEM, json.dumps(BODY).encode())


def evaluate(condition: str, message: Message = MESSAGE) -> str:
    """`true`, `false` or `undefined`; what is no bool counts as undefined."""
    tree = parse_route(f"FROM /messages WHERE {condition} INTO $upstream").condition
    assert tree is not None
    value = _term(tree).evaluate(Subject(message))
    assert compile_condition(tree)(Subject(message)) is (value is True)
    return str(value).lower() if isinstance(value, bool) else "undefined"


TRUE = """
3 = 3|"3" = "3"|'3' = '3'|true = true|key2 = "3"|key2 = '3'|as_number(key2) = 3|$sys2 = '4'|as_number($sys2) = 4
3 != 4|true <> false|key2 <> 'x'|not false|not (true and false)|true AND true|true AND not false|false or true
undefined or true|true or undefined|true or none = 'true'|none = 'true' or true|not null
(key1 ?? "hello") = "value1"|(none ?? "hello") = "hello"|(none ?? none ?? "hello") = "hello"
(as_number(key2) ?? 12.34) = 3|(as_number(key1) ?? 12.34) = 12.34|(3 % 0 ?? 12.34) = 12.34
(null and null) = null|(null and false) = null|(null and true) = null|null or true|(null or null) = null
3 + 4 = 7|(3 + as_number(key2)) = 6|3 - 4 = -1|3 * 4 = 12|3 / 4 = 0.75|4 % 3 = 1|-1 < 0|-(3 + 4) = -7|-3 % 2 = -1
4 < 7|'a' < 'b'|7 <= 7|'a' <= 'a'|8 > 7|'b' > 'a'|7 >= 7|3 / 0 = 1 / 0|0x1F = 31|1e3 = 1000|.5 = 0.5
KEY1 = "value1"|key1 = "value2" or key1 = "value1"|$sys4 = "value4"|{$sys4} = "sysvalue4"|{ $sys1 } = "sysvalue1"
as_number("3") = 3|AS_NUMBER('10e10') = 10e10|AS_NUMBER('10e1000') = 1/0|as_number(as_number(4)) * 3 = 12
as_number(' 1,000.5 ') = 1000.5|as_number('(5)') = -5|as_number('5-') = -5
is_bool(true)|is_defined(key1)|is_defined(null_value)|is_defined(null)|is_defined(10e1000)|is_null(null)
is_null(null_value)|is_number(12.34)|is_number(as_number(key2))|is_string('x')|is_string(key1)|is_string('a' || 'b')
concat('a', 'b', 'c', 'd') = 'abcd'|'a' || key1 || 'd' = 'avalue1d'|'a' || null_value || 'd' = 'ad'
length('HELLO') = 5|LENGTH('') = 0|lower(key3) = 'value3'|upper(key1) = 'VALUE1'|substring('abc', 1) = 'bc'
substring('abc', 1, 1) = 'b'|substring('abc', 1, 0) = ''|substring('hello', 0, 5) = 'hello'|substring('abc', 3) = ''
index_of('abcdef', 'cd') = 2|index_of('abc', 'xz') = -1|starts_with(key1, 'val')|ends_with('abc', 'bc')
contains('abc', 'ab')|abs(-12) = 12|is_defined(abs(3 / 0))|abs(exp(1) - 2.718281) < 1e-6|exp(4000) = 3/0
power(2, 3) = 8|POWER(10, 4000) = 3/0|square(3) = 9|ceiling(2.1) = 3|ceiling(-2.1) = -2|floor(-2.1) = -3
is_defined(ceiling(3 / 0))|sign(0) = 0|sign(-2.1) = -1|sign(-3 / 0) = -1|sqrt(4) = 2|is_defined(sqrt(3 / 0))
50 >= $body.t|$BODY.t >= 50|$body.t <> 500|$body.t = 40 + 10|$body.t >= $body.list[0] + $body.list[1]
$body.list[1] * $body.list[2] = 1200|$body.list[1] / $body.list[0] = 1.5|$body.history[0].t - 10 = $body.history[1].t
$body.history[0].month = 'Feb'|$body.t <> '100'|$body.place.city = City|$body.place.state = $State|$body.yes
$body.yes = true|NOT $body.no|$body.nope <> '100'|$body.yes AND $body.yes|$body.no OR NOT($body.no)
$body.conflict = '100'|as_number($body.conflict) = 100|{$body.conflict} <> 100|{$body.place.state} <> 'CA'
$body.nul = null|$body.nope = null|$body.t != null|NOT ($body.nope != null)|$body.nope > 30|$body.nope > 'x'
abs($body.minus) = 50.4|ceiling(as_number($body.precise)) = 51|is_null($body.nul)|is_null($body.t)
is_defined($body.place.street)|is_string($body.place.street)|length($body.place.state) = 2|power($body.t, 2) = 2500.0
concat($body.place.street, ', ', $body.place.city) = 'One Microsoft Way, Redmond'|sign($body.minus) = -1
substring($body.place.street, 4, length('Microsoft')) = 'Microsoft'|exp(($body.t - 49)) < ($body.t - 47)
/* a comment */ 1 = 1|key1 = 'value\\u0031'|'it\\'s' = "it's"|$body.t > true
"""
FALSE = """
3 = 4|not true|true and false|false and undefined|undefined and false|false and none = 'true'|null or false
is_defined($none)|is_defined(none = "4")|is_bool(12.34)|is_bool(none)|is_defined(undefined)|is_defined(3 % 0)
is_defined(undefined and true)|is_defined(as_number("apple"))|is_null(12.34)|is_null(none)|is_null(3 / 0)
is_number(3 / 0)|is_number('x')|is_string(12.34)|is_string(none)|is_string(null_value)|substring('abc', 3) = 'c'
is_defined(concat('a', none, 'd'))|is_defined(length(null_value))|is_defined(lower(none))|is_defined(-undefined)
is_defined(3 + as_number(none))|starts_with('abc', 'xz')|contains('abc', 'xz')|is_defined(sqrt(3 % 0))
10 >= $body.t|$body.t = '50'|$body.t != 50|$body.place.city != City|$body.nope = 'x'|$body.nope != null
$body.t != null and false|is_null($body.time)
"""
UNDEFINED_ONES = """
3|"a string"|key1|undefined|null|undefined or false|false or undefined|true and undefined|undefined < undefined
as_number(none) = 3|none != "4"|none = 'true' or false|not (none = 'true')|undefined ?? undefined
(none ?? none) = "value"|3 < as_number(null_value)|'a' < none|null_value = 'x'|null_value = null_value
as_number(key1) = 3|as_number(null_value) * 3 = 9|substring('abc', 4) = 'c'|substring('abc', -1) = ''
substring('abc', 1, -2) = ''|substring('abc', 1 % 0) = ''|substring('abc', 2, 5) = ''|index_of(null_value, '1') = 0
starts_with(none, '1')|sqrt(-4) = -2|$body|$City <> $body.nope|$body.time <> '100'|$body.place <> null
$body.list = null|$body.t AND true|true AND (none = 'x')|$body.place.city + 1 = 2|as_number('x') = 1
"""
COMPILE_ERRORS = """
is_defined(3 + none)|is_defined(true + 3)|is_defined('a' + 'b')|is_defined(undefined + 3)|is_defined(3 * none)
is_defined(3 % null_value)|is_defined(3 = none)|is_defined(3 > none)|key1 ?? "hello" = "value1"|(key1 ?? 12.34)
(12.34 ?? key1)|(key1 ?? null)|(key1 ?? true)|concat() = 'a'|concat('a') = 'a'|concat('a', null) = 'a'
'a' || undefined = 'a'|'a' || true = 'a'|length(12.34) = 'x'|length(undefined) = 'x'|lower(true) = 'x'
substring('hello') = 'x'|substring('hello', 'a') = 'x'|index_of('hello')|index_of('hello', null)
starts_with('hello', 12.34)|ends_with(12.34, 12.34)|contains('hello', 'a', 'b')|is_defined(abs(null))
is_defined(abs(key1))|is_defined(abs(3, 4))|is_defined(power(2, key1))|none and true|undefined and "hello"
none or true|- (key1)|is_defined(not key1)|NOT key1 = 'a'|key2 > 3|true AND $body.yes|nosuch(1)|is_defined()
$body.list[] = 1|$body..t = 1|twin_change_includes(a)|a-b = 3|3-4 = 3
"""
SYNTAX_ERRORS = """
test == true|true == test|none = "|null && key1|(1 = 1|1 = 1)|key1 = |and key1|$body.list[1:2] = 1|$body;@
1 = = 1|a[0] = 'x'|key1 'x'|substring('a',) = 'a'
"""


def cases(table: str) -> list[str]:
    # `||` is an operator: the cases stand between single bars without one beside them.
    lines = [line.replace("||", "\0") for line in table.strip().splitlines()]
    return [case.replace("\0", "||").strip() for line in lines for case in line.split("|")]


@pytest.mark.parametrize("condition", cases(TRUE))
def test_it_matches(condition: str) -> None:
    assert evaluate(condition) == "true"


@pytest.mark.parametrize("condition", cases(FALSE))
def test_it_is_false(condition: str) -> None:
    assert evaluate(condition) == "false"


@pytest.mark.parametrize("condition", cases(UNDEFINED_ONES))
def test_it_is_undefined_and_does_not_match(condition: str) -> None:
    assert evaluate(condition) == "undefined"


@pytest.mark.parametrize("condition", cases(COMPILE_ERRORS))
def test_it_does_not_compile(condition: str) -> None:
    with pytest.raises(RouteCompileError):
        evaluate(condition)


@pytest.mark.parametrize("condition", cases(SYNTAX_ERRORS))
def test_it_does_not_parse(condition: str) -> None:
    with pytest.raises(RouteSyntaxError):
        evaluate(condition)


def test_substring_never_raises_at_any_limit() -> None:
    for start in range(-10, 11):
        evaluate(f"substring('hello', {start}) = 'he'")
        for length in range(-10, 11):
            evaluate(f"substring('hello', {start}, {length}) = 'he'")


@pytest.mark.parametrize(
    ("content_type", "encoding", "body"),
    [
        ("application/json; charset=utf-8", "utf-8", b'{"t":50}'),
        ("application/json", "", b'{"t":50}'),
        ("application/json", "latin-1", b'{"t":50}'),
        ("application/json", "utf-8", b"[50]"),
        ("application/json", "utf-8", b"no json"),
        ("application/json", "utf-8", b"\xff\xfe"),
    ],
)
def test_an_unreadable_body_makes_every_body_query_undefined(content_type: str, encoding: str, body: bytes) -> None:
    message = Message("/messages/", {}, {"contentType": content_type, "contentEncoding": encoding}, body)
    assert evaluate("$body.t = 50", message) == "undefined"
    assert evaluate("$body.nope = null", message) == "undefined"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "UTF-32"])
def test_bodies_are_read_in_three_encodings(encoding: str) -> None:
    system = {"contentType": "application/json", "contentEncoding": encoding}
    assert evaluate("$body.t = 'ä'", Message("/", {}, system, '{"t":"ä"}'.encode(encoding))) == "true"


def test_without_spaces_an_operator_is_part_of_the_name() -> None:
    message = Message("/", {"a!": "b", "x-y": "1"}, {}, b"")
    assert evaluate("a!='b'", message) == "true"
    assert evaluate("x-y = '1'", message) == "true"
