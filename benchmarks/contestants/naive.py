"""The design a team would write first: a Celery task per event, SQLAlchemy's ORM, a transaction each, and what was
cancelled published after the commit. (It loses events and cancellations; that is not what is measured here.)"""

import json
import os
from typing import Any
from uuid import uuid4

import psutil
from celery import Celery, Task
from redis import Redis
from sqlalchemy import ForeignKey, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from benchmarks.contestants import CeleryWorker, queue_is_empty, wait_for
from benchmarks.events import Load

STREAM = "naive.cancelled"
app = Celery("benchmarks.contestants.naive", broker=os.environ.get("BENCHMARK_REDIS"))
app.conf.update(task_ignore_result=True, task_default_queue="naive", broker_connection_retry_on_startup=True)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[str] = mapped_column(primary_key=True)
    placed_at: Mapped[str]
    items: Mapped[list["Item"]] = relationship()


class Item(Base):
    __tablename__ = "items"
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    sku: Mapped[str]
    quantity: Mapped[int]
    fulfilled: Mapped[int] = mapped_column(default=0)


class SeenEvent(Base):
    __tablename__ = "seen_events"
    source: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)


class Cancellation(Base):
    __tablename__ = "cancellations"
    id: Mapped[str] = mapped_column(primary_key=True)
    order_id: Mapped[str] = mapped_column(ForeignKey("orders.id"), index=True)
    payload: Mapped[str]


_made: dict[str, Any] = {}


def _servers() -> tuple[Any, Any]:
    """This process's engine and client, made after the fork."""
    if not _made:
        _made["engine"] = create_engine(os.environ["BENCHMARK_DATABASE"], pool_pre_ping=True)
        _made["redis"] = Redis.from_url(os.environ["BENCHMARK_REDIS"])
    return _made["engine"], _made["redis"]


@app.task(bind=True, max_retries=None)
def handle(self: Task, raw: str) -> None:
    """Decide one event, commit, publish."""
    event, (engine, redis) = json.loads(raw), _servers()
    with Session(engine) as session, session.begin():
        if session.get(SeenEvent, (event["source"], event["id"])) is not None:
            return
        order = session.get(Order, event["data"]["orderId"], with_for_update=True)
        if order is None and event["type"] != "order.placed":
            raise self.retry(countdown=0.1)
        session.add(SeenEvent(source=event["source"], id=event["id"]))
        cancelled = _decide(session, order, event)
    for payload in cancelled:
        redis.xadd(STREAM, {"event": payload})


def _decide(session: Session, order: Order | None, event: dict[str, Any]) -> list[str]:
    data, published = event["data"], []
    if order is None:
        lines = [Item(id=one["itemId"], sku=one["sku"], quantity=one["quantity"]) for one in data["items"]]
        session.add(Order(id=data["orderId"], placed_at=data["placedAt"], items=lines))
        return []
    items = {item.id: item for item in order.items}
    for line in data["items"]:
        item = items[line["itemId"]]
        if event["type"] == "fulfillment.created":
            item.fulfilled += line["quantity"]
        elif (keep := max(item.fulfilled, line["fulfillableQuantity"])) < item.quantity:
            payload = json.dumps({"orderId": order.id, "itemId": item.id, "cancelled": item.quantity - keep})
            session.add(Cancellation(id=str(uuid4()), order_id=order.id, payload=payload))
            item.quantity = keep
            published.append(payload)
    return published


class NaiveDesign:
    name = "a task, an ORM session and a transaction per event"

    def __init__(self, redis_url: str, database_url: str) -> None:
        url = database_url.replace("postgresql:", "postgresql+psycopg:", 1)
        app.conf.broker_url = redis_url
        self._redis, self._engine = Redis.from_url(redis_url), create_engine(url)
        environment = {**os.environ, "BENCHMARK_REDIS": redis_url, "BENCHMARK_DATABASE": url}
        self._worker = CeleryWorker(__name__, environment)
        self._sent = 0

    def __enter__(self) -> "NaiveDesign":
        Base.metadata.create_all(self._engine)
        self._process = self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()
        self._engine.dispose()
        self._redis.close()

    def processes(self) -> dict[str, psutil.Process]:
        return {"worker": self._process, "sender": psutil.Process()}

    def run(self, load: Load) -> None:
        for raw in load.events:
            handle.delay(raw.decode())
        self._sent += len(load.events)
        wait_for(lambda: queue_is_empty(self._redis, "naive") and self._done() >= self._sent, "all events to be done")

    def _done(self) -> int:
        with Session(self._engine) as session:
            return session.scalar(select(func.count()).select_from(SeenEvent)) or 0
