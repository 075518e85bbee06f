"""The locks agree with each other, with pyproject.toml and with what is installed; and what `make audit` makes of answers."""

import json
import re
import runpy
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("runtime.lock", "dev.lock")
verdict: Callable[[int, str, str], tuple[int, str]] = runpy.run_path(str(ROOT / "requirements/audit.py"))["verdict"]


def pins(lock: str) -> list[Requirement]:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    return [Requirement(line.removesuffix("\\")) for line in lines if line and not line.startswith(" ")]


def declared(*groups: str) -> list[Requirement]:
    """What pyproject.toml asks for: the program, its extras, and groups with all that they include."""
    found = [*PROJECT["project"]["dependencies"]]
    for extra in PROJECT["project"]["optional-dependencies"].values():
        found += extra
    for group in groups:
        for one in PROJECT["dependency-groups"][group]:
            found += PROJECT["dependency-groups"][one["include-group"]] if isinstance(one, dict) else [one]
    return [Requirement(one) for one in found]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert len(blocks) == len(pins(lock)) > 20
    for block in blocks:
        assert re.fullmatch(r"[\w.-]+==\S+( ; .*)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n?)+", block), block
    assert "://" not in text


def test_the_locks_have_all_that_is_asked_for_in_versions_that_will_do() -> None:
    pinned = {canonicalize_name(one.name): next(iter(one.specifier)).version for one in pins("dev.lock")}
    for one in declared("dev"):
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


def test_what_runs_is_pinned_alike_for_production_and_for_tests() -> None:
    everything = {str(one) for one in pins("dev.lock")}
    assert {str(one) for one in pins("runtime.lock")} <= everything


def test_what_is_installed_is_what_is_pinned() -> None:
    for one in pins("dev.lock"):
        if one.marker is None or one.marker.evaluate():
            assert one.specifier.contains(version(one.name)), one


def answer(*packages: dict[str, Any]) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found and could not be audited: unknown (1)"}
ANSWERS = {
    "all is well": (0, answer(GOOD, GOOD), "", 0, "None of 2"),
    "a vulnerability": (1, answer(GOOD, BAD), "", 1, "bad 1: PYSEC-1, mended in: 1.1"),
    "a version that is not known": (0, answer(GOOD, UNKNOWN), "", 1, "unknown: "),
    "nothing is known": (0, answer(UNKNOWN, UNKNOWN), "No known vulnerabilities found", 0, "NOT looked up"),
    "no connection": (1, "", "requests.exceptions.ConnectionError: Failed to resolve", 0, "NOT looked up"),
    "a lock that cannot be read": (1, "", "ERROR: invalid requirements", 1, "invalid requirements"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_the_verdict_on_an_answer(name: str) -> None:
    returncode, stdout, stderr, code, said = ANSWERS[name]
    found = verdict(returncode, stdout, stderr)
    assert found[0] == code
    assert said in found[1]
