"""The list at the top of docs/decisions.md names every decision below it, in order."""

from __future__ import annotations

import re
from pathlib import Path

DECISIONS = Path(__file__).resolve().parents[2] / "docs/decisions.md"


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_decision_is_in_the_list_and_its_link_leads_to_it() -> None:
    top, *entries = re.split(r"^## ", DECISIONS.read_text(), flags=re.MULTILINE)
    headings = [entry.partition("\n")[0] for entry in entries]
    wanted = [f"- [{heading.partition(' · ')[2]}](#{anchor(heading)})" for heading in headings]
    listed = [line for line in top.splitlines() if line.startswith("- ")]
    assert listed == wanted, "add to the list at the top of docs/decisions.md what stands below"
    assert len(set(wanted)) == len(wanted)
