"""Celery on the same Redis, running a task per event that does nothing."""

import os

import psutil
from celery import Celery
from redis import Redis

from benchmarks.contestants import CeleryWorker, queue_is_empty, wait_for
from benchmarks.events import Load

app = Celery("benchmarks.contestants.empty", broker=os.environ.get("BENCHMARK_REDIS"))
app.conf.update(task_ignore_result=True, task_default_queue="empty", broker_connection_retry_on_startup=True)


@app.task
def nothing(event: str) -> None:
    """Take an event, and do nothing."""


class EmptyTasks:
    name = "Celery, an empty task per event"

    def __init__(self, redis_url: str) -> None:
        app.conf.broker_url = redis_url
        self._redis = Redis.from_url(redis_url)
        self._worker = CeleryWorker(__name__, {**os.environ, "BENCHMARK_REDIS": redis_url})

    def __enter__(self) -> "EmptyTasks":
        self._process = self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._redis.close()

    def processes(self) -> dict[str, psutil.Process]:
        return {"worker": self._process, "sender": psutil.Process()}

    def run(self, load: Load) -> None:
        for raw in load.events:
            nothing.delay(raw.decode())
        wait_for(lambda: queue_is_empty(self._redis, "empty"), "all tasks to be done")
