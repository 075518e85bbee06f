"""Arrows point inwards: the import rules hold, and would notice if they did not."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(sys.executable).parent / "lint-imports"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, to be spoiled."""
    for package in ("domain", "worker"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_import_rules_hold() -> None:
    done = lint(REPOSITORY)
    assert done.returncode == 0, done.stdout
    assert " 0 broken" in done.stdout


PLANTED = {
    "the domain knows the worker": (
        "domain/policy.py",
        "import worker.settings",
        "The domain knows nothing outward",
    ),
    "the domain knows a library": ("domain/orders.py", "import sqlalchemy", "The domain knows nothing outward"),
    "storage knows what uses it": (
        "worker/storage/ledger.py",
        "from worker.process import process",
        "Arrows point inwards",
    ),
    "settings know what they set": ("worker/settings.py", "import worker.bootstrap", "Arrows point inwards"),
    "a process knows another": ("worker/relay.py", "import worker.upkeep", "Arrows point inwards"),
    "ingress knows the tasks": ("worker/ingress.py", "from worker.tasks import dispatch", "Arrows point inwards"),
    "a batch knows celery": ("worker/process.py", "import celery", "Only the app and its tasks know Celery"),
    "orders know decisions": (
        "domain/orders.py",
        "from domain.decisions import decide",
        "Inside the domain: orders below decisions",
    ),
}


@pytest.mark.parametrize(("path", "line", "contract"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_caught(path: str, line: str, contract: str, copy: Path) -> None:
    with (copy / path).open("a") as module:
        module.write(f"\n\ndef planted() -> None:\n    {line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    assert f"{contract} BROKEN" in " ".join(done.stdout.split())


def test_a_module_that_no_rule_knows_is_caught(copy: Path) -> None:
    """Only the copy has it: so it is the copy that is looked at, and not what is installed."""
    (copy / "worker" / "utils.py").write_text("")
    done = lint(copy)
    assert done.returncode == 1, done.stdout
    assert "utils" in done.stdout


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    command = [str(PROGRAM), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
