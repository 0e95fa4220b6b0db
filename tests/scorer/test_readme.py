"""The README names every setting, with its default."""

from pathlib import Path

import msgspec

from scorer.settings import Settings

README = Path(__file__).parents[2] / "modules" / "scorer" / "README.md"


def test_every_setting_is_in_the_table_with_its_default() -> None:
    text = README.read_text()
    for field in msgspec.structs.fields(Settings):
        default = field.default
        shown = f"`{default}`" if isinstance(default, str) else msgspec.json.encode(default).decode().removesuffix(".0")
        assert f"| `{field.name}` | {shown} |" in text
