"""What `shortpick doctor` says of the settings: what contradicts itself, and what is dangerous in production. Pure."""

from collections.abc import Iterator

from worker.cli.findings import Finding, fault, ok, warning
from worker.settings import Settings, variable

CHECK = "settings"
_LIMITS = (
    *("preflight_orders", "preflight_units", "preflight_share"),
    *("breaker_orders", "breaker_source_orders", "breaker_sku_orders"),
    *("breaker_units", "breaker_source_units", "breaker_sku_units"),
)


def of_settings(settings: Settings) -> list[Finding]:
    rules = (_database, _shadow, _guardrails, _breakers, _grace, _retention, _batches)
    found = [finding for rule in rules for finding in rule(settings)]
    return found or [ok(CHECK, "They fit together.")]


def _database(settings: Settings) -> Iterator[Finding]:
    if _in_production(settings):
        return
    name, path = variable("database_url"), settings.database_url.removeprefix("sqlite:///").partition("?")[0]
    if path in ("", ":memory:"):
        yield fault(
            CHECK,
            f"{name} is a database in memory: each process has one of its own, and loses it when it ends.",
            "Name a file, or PostgreSQL.",
        )
    elif not path.startswith("/"):
        yield warning(
            CHECK,
            f"{name} names a file from the working directory on, so processes may use different ones.",
            "Name it from the root on, as in sqlite:////folder/file.db.",
        )


def _shadow(settings: Settings) -> Iterator[Finding]:
    if settings.shadow:
        yield warning(
            CHECK,
            f"{variable('shadow')} is true: everything is decided, and nothing cancelled.",
            "Set it to false once `shortpick report --shadow` shows what you want.",
        )


def _guardrails(settings: Settings) -> Iterator[Finding]:
    if _in_production(settings) and not any(getattr(settings, name) for name in _LIMITS):
        yield warning(
            CHECK,
            "Nothing limits how much a wrong stock feed may cancel.",
            f"Set limits, as {variable('breaker_orders')} and {variable('preflight_share')} (docs/guardrails.md).",
        )


def _breakers(settings: Settings) -> Iterator[Finding]:
    for scope in ("source", "sku"):
        for what in ("orders", "units"):
            part, whole = f"breaker_{scope}_{what}", f"breaker_{what}"
            if 0 < getattr(settings, whole) < getattr(settings, part):
                yield warning(
                    CHECK,
                    f"{variable(part)} can never be reached: {variable(whole)} is lower.",
                    "Lower the one, or raise the other.",
                )


def _grace(settings: Settings) -> Iterator[Finding]:
    if _in_production(settings) and not settings.sku_shortage_grace_seconds:
        yield warning(
            CHECK,
            f"{variable('sku_shortage_grace_seconds')} is 0: a shortage of a SKU cuts while reports of shipments may "
            "still be on their way.",
            "Set it to 300.",
        )
    graces = [one for one in (settings.order_shortage_grace_seconds, settings.sku_shortage_grace_seconds) if one]
    if graces and settings.release_due_every_seconds > min(graces):
        yield warning(
            CHECK,
            f"{variable('release_due_every_seconds')} is longer than a grace, so that what waits is decided late.",
            "Lower it; 5 is usual.",
        )


def _retention(settings: Settings) -> Iterator[Finding]:
    if settings.queue_retention_seconds < settings.waiting_limit_seconds:
        yield warning(
            CHECK,
            f"{variable('queue_retention_seconds')} is shorter than {variable('waiting_limit_seconds')}: an event may "
            "still wait when its entry has left the queue, where nobody can look it up or send it again from.",
            "Make the retention the longer one.",
        )


def _batches(settings: Settings) -> Iterator[Finding]:
    if settings.max_pending < settings.batch_size * settings.worker_concurrency:
        yield warning(
            CHECK,
            f"{variable('max_pending')} is less than a full batch for each worker process, so some find nothing to do.",
            f"Raise it above {variable('batch_size')} × {variable('worker_concurrency')}, over all machines.",
        )


def _in_production(settings: Settings) -> bool:
    return not settings.database_url.startswith("sqlite")
