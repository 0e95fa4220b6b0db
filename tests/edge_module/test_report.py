"""Reported properties: what edgeHub takes, at most 16 KB, and only what changed."""

import json

from hypothesis import given
from hypothesis import strategies as st

from edge_module.report import LIMIT_BYTES, clean, difference, fit, merge

_VALUES = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
_DOCUMENTS = st.dictionaries(st.sampled_from("abcd"), _VALUES, max_size=4)


@given(_DOCUMENTS, _DOCUMENTS)
def test_the_difference_makes_the_new_document_of_the_old(old: dict[str, object], new: dict[str, object]) -> None:
    assert merge(old, difference(old, new)) == new


@given(_DOCUMENTS)
def test_equal_documents_have_no_difference(document: dict[str, object]) -> None:
    assert difference(document, document) == {}


def test_what_edgehub_refuses_is_mended() -> None:
    value = {"a.b c": "x" * 9000, "n": 2**60, "list": [None, 1], "deep": [[[[[[[[[[1]]]]]]]]]]}
    mended = clean(value)
    assert isinstance(mended, dict)
    assert mended["a_b_c"] == "x" * 1000
    assert (mended["n"], mended["list"]) == (2**52, [1])


def test_a_report_that_is_too_large_keeps_health_and_the_head_of_lists() -> None:
    report = {"health": {"state": "ok"}, "settings": "s", "losses": [f"{i:0500}" for i in range(100)], "big": "y" * 900}
    fitted = fit(report)
    assert len(json.dumps(fitted, separators=(",", ":"))) <= LIMIT_BYTES
    assert fitted["health"] == {"state": "ok"}
    assert fitted["losses"] == report["losses"][: len(fitted["losses"])]  # type: ignore[index, arg-type]
    assert fitted["truncated"] is True
