"""The processes, one command each, and `up`, which runs all of them on one machine."""

import signal
from pathlib import Path
from threading import Event as Flag
from typing import Annotated

import typer

from worker import bootstrap, migrations, tasks
from worker.app import Beat, configure, log_to_stderr
from worker.cli import context
from worker.cli.context import messages
from worker.consumer import worker_service
from worker.embedded import Embedded
from worker.ingress import Ingress
from worker.settings import Settings, load
from worker.storage.database import reading

db = typer.Typer(help="The database's tables.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    for command in (up, ingress, worker, relay, beat):
        app.command()(command)
    app.add_typer(db, name="db")


def up(
    state_dir: Annotated[Path, typer.Option("--state-dir", help="Where everything that lasts is kept.")] = Path(
        ".shortpick"
    ),
) -> None:
    """Run the embedded pipeline here until Ctrl-C or SIGTERM: Redis, SQLite, and every process."""
    stopping = _stop_on_signals()
    with Embedded(state_dir) as pipeline:
        messages.print(f"The pipeline runs in {pipeline.state_dir}; logs are in its folder logs. End it with Ctrl-C.")
        messages.print(f"Try: shortpick events send FILE --state-dir {state_dir}")
        with context.pipeline(state_dir):
            pass  # it tells of a pause that lasts
        while not stopping.wait(0.2):
            for name, how in pipeline.restart_dead().items():
                messages.print(
                    f"{name} {how} and has been started again; see {pipeline.log_file(name)}", style="yellow"
                )
        messages.print("Ending …")
    messages.print("All processes have ended.")


def ingress() -> None:
    """Read the queue and hand batches to the workers."""
    settings = _settings("ingress")
    configure(settings)
    engine, client = bootstrap.engine(settings), bootstrap.redis(settings)
    Ingress(
        queue=bootstrap.queue(settings, client),
        engine=engine,
        dispatch=tasks.dispatch,
        batch_size=settings.batch_size,
        batch_bytes=settings.batch_bytes,
        max_pending=settings.max_pending,
        redeliver_after_milliseconds=bootstrap.milliseconds(settings.redeliver_after_seconds),
    ).run(_stop_on_signals())


def worker() -> None:
    """Decide, apply and record, in as many processes as SHORTPICK_WORKER_CONCURRENCY says (Celery)."""
    service = worker_service(_settings("worker"))
    service.start()
    raise typer.Exit(service.exitcode or 0)


def relay() -> None:
    """Publish committed cancellations."""
    settings = _settings("relay")
    engine, client = bootstrap.engine(settings), bootstrap.redis(settings)
    bootstrap.relay(settings, engine, client).run(_stop_on_signals())


def beat() -> None:
    """Start what runs by the clock (Celery beat)."""
    service = Beat(configure(_settings("beat")))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: service.stop())
    service.start()


@db.command()
def upgrade() -> None:
    """Create the tables, or bring them to this version."""
    settings = load()
    engine = bootstrap.engine(settings)
    migrations.upgrade(engine)
    with reading(engine) as connection:
        context.tell_pauses(connection)
    engine.dispose()
    messages.print("The database's tables are of this version.")


def _settings(process: str) -> Settings:
    settings = load()
    log_to_stderr(settings, process)
    return settings


def _stop_on_signals() -> Flag:
    """A flag that SIGTERM and Ctrl-C set."""
    stopping = Flag()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return stopping
