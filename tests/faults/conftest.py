"""Scenes for the fault tests."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import pytest
from redis import Redis
from sqlalchemy import Engine

from tests.faults.load import fault_settings
from tests.faults.scene import Scene
from tests.faults.summary import Record
from worker.settings import Settings
from worker.streams import Queue


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is not in the small set runs only with `make faults`."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(300))
            if not item.get_closest_marker("small"):
                item.add_marker("slow")


@pytest.fixture
def settings(redis_url: str, database_url: str) -> Settings:
    return fault_settings(redis_url=redis_url, database_url=database_url)


@pytest.fixture
def new_scene(
    settings: Settings,
    tmp_path: Path,
    rng: random.Random,
    engine: Engine,
    redis: Redis,
    queue: Queue,
    record_property: Record,
) -> Iterator[Callable[..., Scene]]:
    """Makes a scene of running processes, with other settings if given; `given` stands in the environment of single
    processes, by their names, and `environment` in that of all."""
    with ExitStack() as stack:

        def make(
            given: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
            environment: Mapping[str, str] = MappingProxyType({}),
            **chosen: object,
        ) -> Scene:
            chosen_settings = settings.model_copy(update=chosen)
            scene = Scene(chosen_settings, tmp_path, rng, engine, redis, queue, record_property)
            scene.give_all(**environment)
            for name, variables in given.items():
                scene.give(name, **variables)
            return stack.enter_context(scene)

        yield make


@pytest.fixture
def scene(new_scene: Callable[..., Scene]) -> Scene:
    return new_scene()


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[Scene, Mapping[str, int]], None]:
    """Notes the faults of a test, each of which must have happened, and how many events it disturbed."""

    def count(scene: Scene, faults: Mapping[str, int]) -> None:
        assert all(faults.values()), f"a fault never happened: {faults}"
        record_property("faults", dict(faults))
        record_property("events", scene.redis.xlen("order.events"))

    return count
