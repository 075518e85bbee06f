"""What the processes print, seen as they are: in a process of its own, on its standard error."""

import json
import subprocess
import sys
from typing import Any

import pytest

from worker.logs import MAX_FIELD_CHARACTERS

FOREIGN = "import logging\nlogging.getLogger('celery.worker')"


def test_a_line_is_a_json_object_with_its_fields_beside_it() -> None:
    (line,) = logged("log.info('order.cancelled', order_id='o1', units=3, note=None)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "order.cancelled",
        "order_id": "o1",
        "units": 3,
        "note": None,
        "level": "info",
        "process": "ingress",
    }


def test_nothing_is_printed_to_standard_output() -> None:
    assert run("log.error('a fact')").stdout == ""


@pytest.mark.parametrize("format_", ["json", "auto"])
def test_what_no_person_reads_is_json(format_: str) -> None:
    assert [json.loads(line)["event"] for line in printed("log.info('a fact')", format_=format_)] == ["a fact"]


def test_on_the_console_a_fact_is_a_readable_line() -> None:
    (line,) = printed("log.warning('event.dead_letter', code='too_large', order_id='o1')", format_="console")
    assert not line.startswith("{")
    assert all(word in line for word in ("event.dead_letter", "warning", "code=too_large", "order_id=o1", "ingress"))
    assert "\x1b" not in line


@pytest.mark.parametrize("format_", ["json", "console"])
def test_a_fact_is_one_line_whatever_its_values_hold(format_: str) -> None:
    (line,) = printed(r"log.info('a fact', value='one\ntwo\r\x1b[31m\u2028\x00\ud800')", format_=format_)
    assert not any(character in line for character in "\r\x1b\x00\u2028")
    assert "two" in line


@pytest.mark.parametrize("format_", ["json", "console"])
def test_what_is_printable_is_not_escaped_beyond_what_json_asks_for(format_: str) -> None:
    (line,) = printed("log.info('a fact', value='Żółć ☃')", format_=format_)
    assert (json.loads(line)["value"] if format_ == "json" else line).count("Żółć ☃") == 1


def test_a_value_is_bounded_and_tells_its_length() -> None:
    (line,) = logged("log.info('a fact', value='x' * 10_000)")
    assert line["value"].startswith("x" * MAX_FIELD_CHARACTERS)
    assert "10000 characters" in line["value"]
    assert len(line["value"]) < MAX_FIELD_CHARACTERS + 40


def test_a_value_that_must_be_escaped_is_bounded_all_the_same() -> None:
    (line,) = logged(r"log.info('a fact', value='\x00' * 10_000)")
    assert len(line["value"]) < 12 * MAX_FIELD_CHARACTERS


VALUES = {
    "bytes": "value",
    "a list": "[value]",
    "a dictionary": "{'raw': value}",
}


@pytest.mark.parametrize("expression", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("format_", ["json", "console"])
def test_bytes_are_never_printed(expression: str, format_: str) -> None:
    (line,) = printed(rf"value = b'call Alice\xff'; log.info('a fact', value={expression})", format_=format_)
    assert "Alice" not in line


@pytest.mark.parametrize("expression", ["['x' * 10_000]", "ValueError('x' * 10_000)"])
@pytest.mark.parametrize("format_", ["json", "console"])
def test_no_value_makes_a_line_without_bounds(expression: str, format_: str) -> None:
    (line,) = printed(f"log.info('a fact', value={expression})", format_=format_)
    assert len(line) < 2000


def test_a_record_of_another_library_is_a_line_like_ours() -> None:
    (line,) = logged(f"{FOREIGN}.warning('lost %s of %d', 'one', 2)")
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "lost one of 2",
        "level": "warning",
        "logger": "celery.worker",
        "process": "ingress",
    }


def test_a_record_of_another_library_is_bounded_and_on_one_line() -> None:
    (line,) = logged(rf"{FOREIGN}.error('body: %s', 'secret\n' * 10_000)")
    assert len(line["event"]) < 3 * MAX_FIELD_CHARACTERS
    assert "\n" not in line["event"]


def test_every_line_tells_its_process_whatever_the_thread() -> None:
    script = f"""
import threading
{FOREIGN}.info('main')
for target in (lambda: log.info('ours'), lambda: logging.getLogger('celery.worker').info('theirs')):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
"""
    lines = logged(script)
    assert {line["event"]: line.get("process") for line in lines} == dict.fromkeys(
        ["main", "ours", "theirs"], "ingress"
    )


@pytest.mark.parametrize("logger", ["log", "logging.getLogger('celery.worker')"])
def test_of_an_exception_its_kind_and_message_are_told(logger: str) -> None:
    """The end of a trace says what happened; where it was called from, however deep, comes after that."""
    script = f"""
import logging
def deep(n):
    return deeper(n) if n else {{}}['what went wrong']
def deeper(n):
    return deep(n - 1)
try:
    deep(20)
except KeyError:
    {logger}.exception('it failed')
"""
    (line,) = logged(script)
    assert line["event"] == "it failed"
    assert "KeyError" in line["exception"]
    assert "what went wrong" in line["exception"]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", "debug info warning error"),
        ("info", "info warning error"),
        ("warning", "warning error"),
        ("error", "error"),
    ],
)
@pytest.mark.parametrize("logger", ["log", "logging.getLogger('celery.worker')"])
def test_the_level_decides_what_is_told(level: str, told: str, logger: str) -> None:
    script = "import logging\n" + "\n".join(f"{logger}.{one}('{one}')" for one in ("debug", "info", "warning", "error"))
    assert [line["event"] for line in logged(script, level=level)] == told.split()


def test_to_set_it_up_twice_prints_each_line_once() -> None:
    (line,) = logged("logs.setup('info', 'json', 'relay')\nlog.info('a fact')")
    assert line["process"] == "relay"


def logged(script: str, level: str = "info") -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed(script, level=level)]


def printed(script: str, level: str = "info", format_: str = "json") -> list[str]:
    # Not splitlines(), which also splits at characters that a terminal takes for part of a line.
    return run(script, level, format_).stderr.removesuffix("\n").split("\n")


def run(script: str, level: str = "info", format_: str = "json") -> subprocess.CompletedProcess[str]:
    preparation = f"""
import structlog
from worker import logs
logs.setup({level!r}, {format_!r}, "ingress")
log = structlog.get_logger("worker.test")
"""
    command = [sys.executable, "-X", "utf8", "-c", preparation + script]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr
    return done
