"""Settings are taken whole or refused whole, with the path of the offending key."""

from typing import Annotated

import msgspec
import pytest

from edge_module.settings import Accepted, RefusedDocument, parse


class Target(msgspec.Struct, frozen=True):
    name: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443


class Settings(msgspec.Struct, frozen=True):
    window_secs: Annotated[float, msgspec.Meta(gt=0, description="length of a window")] = 60.0
    digest: str | None = None
    targets: list[Target] = []

    def __post_init__(self) -> None:
        if len({target.name for target in self.targets}) < len(self.targets):
            raise ValueError("two targets have one name")


def test_a_document_becomes_settings_and_names_what_it_does_not_know() -> None:
    document = {"$version": 7, "window_secs": 5, "typo": 1, "targets": [{"name": "a", "prot": 1}]}
    assert parse(Settings, document) == Accepted(
        Settings(window_secs=5.0, targets=[Target("a")]), 7, ("$.targets[0].prot", "$.typo")
    )


class Cloud(msgspec.Struct, frozen=True, tag_field="kind", tag="cloud"):
    name: str
    ca_file: Annotated[str, msgspec.Meta(min_length=1)] | None = None


class Folder(msgspec.Struct, frozen=True, tag_field="kind", tag="folder"):
    name: str
    inner: list[Cloud | None] = []


class Tagged(msgspec.Struct, frozen=True):
    destinations: Annotated[tuple[Cloud | Folder, ...], msgspec.Meta(description="where it goes")] = ()
    first: Cloud | Folder | None = None


def test_unknown_keys_are_named_inside_structures_that_a_tag_tells_apart() -> None:
    document: dict[str, object] = {
        "destinations": [
            {"kind": "cloud", "name": "a", "ca_fle": "x"},
            {"kind": "folder", "name": "b", "ca_file": "y", "inner": [{"kind": "cloud", "name": "c", "z": 1}, None]},
        ],
        "first": {"kind": "folder", "name": "d", "pth": "."},
    }
    accepted = parse(Tagged, document)
    assert isinstance(accepted, Accepted)
    assert accepted.unknown == (
        "$.destinations[0].ca_fle",
        "$.destinations[1].ca_file",
        "$.destinations[1].inner[0].z",
        "$.first.pth",
    )


def test_null_is_the_default() -> None:
    assert parse(Settings, {"window_secs": None}) == Accepted(Settings(), None)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"window_secs": 0}, "$.window_secs"),
        ({"window_secs": "60"}, "$.window_secs"),
        ({"targets": [{"name": "a", "port": 70000}]}, "$.targets[0].port"),
        ({"targets": [{"port": 1}]}, "$.targets[0].name"),
        ({"targets": [{"name": "a"}, {"name": "a"}]}, "$"),
    ],
)
def test_a_refusal_names_the_offending_key(document: dict[str, object], path: str) -> None:
    refused = parse(Settings, {"$version": 3, "window_secs": 1.0} | document)
    assert isinstance(refused, RefusedDocument)
    assert (refused.version, refused.path) == (3, path)
    assert refused.reason
