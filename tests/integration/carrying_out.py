"""A worker process that carries out approved holds: `python -m tests.integration.carrying_out`, with the settings of the
environment."""

from worker import bootstrap, logs, verdicts
from worker.settings import load


def main() -> None:
    settings = load()
    logs.setup("warning", "json", "test")
    engine, redis = bootstrap.engine(settings), bootstrap.redis(settings)
    verdicts.BATCH = 100  # so that there is a middle
    while verdicts.carry_out_approved(bootstrap.processor(settings, engine, redis)):
        pass


if __name__ == "__main__":
    main()
