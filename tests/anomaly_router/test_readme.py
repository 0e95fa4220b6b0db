"""The module's README says what the code does."""

import json
import re
import typing
from pathlib import Path

import msgspec

from anomaly_router import router
from anomaly_router.outgoing import ROW_LIMIT_BYTES
from anomaly_router.router import AnomalyRouter
from anomaly_router.settings import Settings
from contract.reasons import REASONS

MODULE = Path(__file__).parents[2] / "modules/anomaly_router"
README = (MODULE / "README.md").read_text()


def test_every_setting_stands_in_the_readme_with_its_default_and_meaning() -> None:
    hints = typing.get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        (meaning,) = (meta.description for meta in hints[field.name].__metadata__ if meta.description)
        assert f"| `{field.name}` | `{json.dumps(field.default)}` | {meaning} |" in README


def test_every_counter_method_and_file_stands_in_the_readme() -> None:
    source = "".join(path.read_text() for path in (MODULE / "anomaly_router").glob("*.py"))
    counters = set(re.findall(r'tx\.count\(\s*"(\w+)"', source)) | {"late_rows", "untimed_rows"}
    files = {path.name for path in (MODULE / "anomaly_router").glob("[!_]*.py")}
    for name in counters | files | set(AnomalyRouter().methods()):
        assert f"`{name}`" in README


def test_the_reason_codes_are_known_to_operators() -> None:
    section = README.partition("## Reason codes")[2].partition("## Files")[0]
    codes = [
        code
        for line in section.splitlines()
        for code in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    ]
    assert codes
    assert set(codes) <= set(REASONS)


def test_the_limits_in_the_readme_are_those_of_the_code() -> None:
    assert f"above {ROW_LIMIT_BYTES // 1024} KiB" in README
    assert f"{router.SERIES_LIMIT_BYTES:,} bytes" in README
