from hypothesis import given
from hypothesis import strategies as st

from contract.identity import InputIdentity, body_digest, keyed_id

identities = st.builds(
    InputIdentity,
    device=st.text(max_size=4),
    module=st.text(max_size=4),
    message_id=st.none() | st.text(max_size=4),
    digest=st.binary(max_size=4).map(body_digest),
)


@given(identities, identities)
def test_keys_are_equal_exactly_when_identities_are(one: InputIdentity, other: InputIdentity) -> None:
    assert (one.key == other.key) == (one == other)


def test_the_boundary_between_device_and_module_counts() -> None:
    digest = body_digest(b"")
    assert InputIdentity("a", "bc", "1", digest).key != InputIdentity("ab", "c", "1", digest).key


def test_no_message_id_is_not_an_empty_one() -> None:
    digest = body_digest(b"")
    assert InputIdentity("a", "", None, digest).key != InputIdentity("a", "", "", digest).key


def test_a_rebooted_device_that_counts_from_one_again_is_a_new_message() -> None:
    assert InputIdentity("a", "", "1", body_digest(b"x")).key != InputIdentity("a", "", "1", body_digest(b"y")).key


def test_a_keyed_id_depends_on_the_key_and_on_where_the_parts_end() -> None:
    assert keyed_id(b"k" * 32, b"ab", b"c") == keyed_id(b"k" * 32, b"ab", b"c")
    assert keyed_id(b"k" * 32, b"ab", b"c") != keyed_id(b"K" * 32, b"ab", b"c")
    assert keyed_id(b"k" * 32, b"ab", b"c") != keyed_id(b"k" * 32, b"a", b"bc")
