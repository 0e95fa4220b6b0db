"""Write docs/reasons.md from contract/reasons.py (`make docs`); a test compares the two."""

import sys
from pathlib import Path

from contract.reasons import REASONS

PAGE = Path(__file__).parent.parent / "docs" / "reasons.md"

_HEAD = """# Reason codes

One word for one cause, in logs, twins, metrics and rejected rows. Generated from `libs/contract/contract/reasons.py`.

| code | meaning | what to do |
|---|---|---|
"""


def render() -> str:
    rows = sorted(REASONS.items())
    return _HEAD + "".join(f"| `{code}` | {reason.meaning} | {reason.action} |\n" for code, reason in rows)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"wrote docs/{PAGE.name}\n")
