"""Shortages of many SKUs of which there is enough for all: ended together, at the cost of a few statements.

A feed that reports every SKU every few minutes consists of little else.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from domain.allocation import overtaken
from domain.policy import Policy
from worker.storage import allocations, demand, holds, inbox, stock
from worker.storage.allocations import Allocation
from worker.storage.inbox import Decided


def end(connection: Connection, skus: Sequence[str], policy: Policy, at: datetime) -> list[Decided]:
    """End those shortages of these SKUs that cut nothing, and return what was decided. All others are left to a run of
    their own: of SKUs with several shortages, with newer figures, or with cuts that are held."""
    free = allocations.lock_some(connection, skus)
    unfinished = allocations.unfinished_of(connection, free)
    figures = stock.figures(connection, free)
    held, shortages = holds.skus(connection, free), Counter(one.sku for one in unfinished)
    simple = [
        one
        for one in unfinished
        if shortages[one.sku] == 1
        and one.sku not in held
        and one.sku not in figures.restocked
        and not one.begun
        and one.due_at <= at
        and not policy.paused.holds(one.event.source)
        and not overtaken(one.happened_at, figures.newest[one.sku, one.event.source], None)
    ]
    wanted, shipped = demand.wanted_of_each(connection, simple), demand.shipped_since_each(connection, simple)
    enough = [one for one in simple if wanted[one.allocation_id] <= one.available - shipped[one.allocation_id]]
    allocations.finish(connection, {one.allocation_id: wanted[one.allocation_id] for one in enough}, policy, at)
    decided = [_decided(one, wanted[one.allocation_id], shipped[one.allocation_id], at) for one in enough]
    inbox.save(connection, decided)
    return decided


def _decided(one: Allocation, wanted: int, shipped: int, at: datetime) -> Decided:
    facts = {"sku": one.sku, "available": one.available, "shipped": shipped, "wanted": wanted, "given": wanted}
    return Decided(one.event.key, None, "nothing", "enough", facts, at)
