import pytest

from simulator.fault_proxy import Exchange, Request
from simulator.writes import overwrites

BLOB = "/account/box/readings/site%3Da/x-1-2.jsonl.gz"
NAME = "readings/site=a/x-1-2.jsonl.gz"
ONCE = (("if-none-match", "*"), ("x-ms-blob-type", "BlockBlob"))


def put(
    path: str = BLOB, query: str = "", *, status: int | None = 201, once: bool = True, method: str = "PUT"
) -> Exchange:
    """`status` is what storage gave, seen by the client or not."""
    return Exchange(Request(1, method, path, query, ONCE if once else ()), status)


@pytest.mark.parametrize(
    "requests",
    [
        [put()],
        [put(), put(status=409), put(method="HEAD", status=200, once=False)],
        [put(status=None), put()],
        [put(status=503), put(status=500), put()],
        [put(query="comp=block&blockid=aa", once=False), put(query="comp=block&blockid=aa", once=False)],
        [
            put(query="comp=block&blockid=aa", once=False),
            put(query="comp=blocklist"),
            put(query="comp=blocklist", status=409),
        ],
        [
            put("/account/box", "restype=container", once=False),
            put("/account/box", "restype=container&comp=list", once=False),
        ],
        [put(query="comp=metadata", status=412, once=False), put(method="DELETE", status=404, once=False)],
        [put(), put("/account/other/" + NAME.replace("x-1", "x-2"))],
    ],
)
def test_blobs_that_are_created_once_are_well_written(requests: list[Exchange]) -> None:
    assert overwrites(requests) == []


@pytest.mark.parametrize(
    ("requests", "problem"),
    [
        ([put(), put()], f"{NAME} is created 2 times"),
        ([put(query="comp=blocklist"), put()], f"{NAME} is created 2 times"),
        ([put(), put(BLOB.replace("%3D", "="))], f"{NAME} is created 2 times"),
        ([put(once=False)], f"{NAME} is written without If-None-Match: *"),
        ([put(once=False, status=None)], f"{NAME} is written without If-None-Match: *"),
        ([put(query="comp=blocklist", once=False)], f"{NAME} is written without If-None-Match: *"),
        ([put(query="comp=metadata", status=200)], f"{NAME} is changed by PUT metadata"),
        ([put(query="comp=appendblock")], f"{NAME} is changed by PUT appendblock"),
        ([put(method="DELETE", status=202)], f"{NAME} is changed by DELETE"),
    ],
)
def test_a_blob_that_is_written_twice_or_could_be_or_is_changed_is_named(
    requests: list[Exchange], problem: str
) -> None:
    assert overwrites(requests) == [problem]
