"""What all tests share: the seed of random choices, printed, and Hypothesis' profile."""

import random

import pytest
from hypothesis import settings

pytest_plugins = ["tests.fixtures", "tests.faults.summary"]

settings.register_profile("shortpick", deadline=None, print_blob=True)
settings.load_profile("shortpick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="repeat a run's random choices")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**31)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(config.option.seed)


def pytest_report_header(config: pytest.Config) -> str:
    return f"seed: {config.option.seed} (repeat with: make test SEED={config.option.seed})"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random choices that the run's seed and the test's name decide."""
    return random.Random(f"{request.config.option.seed} {request.node.nodeid}")
