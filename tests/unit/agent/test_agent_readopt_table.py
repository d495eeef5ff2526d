"""The table of docs/design/reconcile.md speaks of code and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
SHORT = {
    "cp/": "controlplane/opentailr_controlplane/",
    "ag/": "agent/opentailr_agent/",
    "run/": "sdk/datatailr/runner/",
}


def test_every_rule_names_code_and_a_test_that_exist() -> None:
    text = (ROOT / "docs" / "design" / "reconcile.md").read_text()
    rows = re.findall(r"^\| (?!Rule|-)(.+?) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert len(rows) > 40
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    for rule, code, test in rows:
        (name,) = re.findall(r"^`(test_\w+)`$", test)
        assert name in defined, f"{rule}: there is no test {name}"
        if code == "–":
            continue
        (place, symbol) = re.findall(r"^`([\w./]+)` (\w+)$", code)[0]
        for short, whole in SHORT.items():
            place = re.sub(f"^{short}", whole, place)
        source = (ROOT / place).read_text()
        assert re.search(rf"^\s*(async def|def|class) {symbol}\b", source, re.MULTILINE), (
            f"{rule}: no {symbol} in {place}"
        )
