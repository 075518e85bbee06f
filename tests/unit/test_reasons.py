"""docs/reasons.md has an entry for every code that the program can write, and for no other."""

import ast
import re
from pathlib import Path
from typing import Any, get_args

import pytest

from domain.errors import RefusalRule
from domain.operations import ReasonCode
from domain.outcomes import DecisionReason, Outcome, WaitsFor
from domain.policy import HoldReason
from worker.cli.wording import explained
from worker.storage import dead_letters

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs" / "reasons.md").read_text()
LOG_EVENT = re.compile(r"[a-z_]+\.[a-z_]+")


def codes_of(alias: Any) -> set[str]:
    """The strings of a Literal, or of a union of them."""
    return {alias} if isinstance(alias, str) else {code for part in get_args(alias) for code in codes_of(part)}


def log_events() -> set[str]:
    """What looks like a log event, and is the first argument of a method of `log`, or of a function, in a module that
    logs: a method may have got another name."""
    trees = [ast.parse(path.read_text()) for path in (REPOSITORY / "worker").rglob("*.py")]
    calls = [node for tree in trees if _logs(tree) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    logging = [call for call in calls if ast.unparse(call.func).startswith("log.") or isinstance(call.func, ast.Name)]
    first = [call.args[0].value for call in logging if call.args and isinstance(call.args[0], ast.Constant)]
    return {value for value in first if isinstance(value, str) and LOG_EVENT.fullmatch(value)}


def _logs(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "get_logger" for node in ast.walk(tree))


def documented(heading: str) -> list[str]:
    """The codes in the first column of a section's table."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)[1:]
    return [code for cell in cells for code in re.findall(r"`(.*?)`", cell)]


SECTIONS = {
    "Dead letters": codes_of(dead_letters.Code),
    "Rules that refuse a request": codes_of(RefusalRule),
    "Outcomes": codes_of(Outcome),
    "Reasons of decisions": codes_of(DecisionReason),
    "What an event waits for": codes_of(WaitsFor),
    "Why a cut is held": codes_of(HoldReason),
    "Reason codes of cancellations": codes_of(ReasonCode),
    "Log events": log_events(),
}


@pytest.mark.parametrize(("heading", "codes"), SECTIONS.items(), ids=SECTIONS)
def test_every_code_has_an_entry_and_every_entry_a_code(heading: str, codes: set[str]) -> None:
    found = documented(heading)
    assert set(found) == codes
    assert len(found) == len(codes) > 3


def test_what_the_commands_point_to_is_there() -> None:
    for code in codes_of(dead_letters.Code) | codes_of(RefusalRule):
        assert explained(code) == f"docs/reasons.md#{code}"
        assert PAGE.count(f'<a id="{code}"></a>`{code}`') == 1


def test_no_two_entries_have_one_anchor() -> None:
    anchors = re.findall(r'<a id="(.*?)"></a>', PAGE)
    assert len(anchors) == len(set(anchors))


def test_the_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        text = (REPOSITORY / "docs" / path).read_text() if path else PAGE
        slugs = {
            re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
        }
        assert not anchor or anchor in slugs, target
