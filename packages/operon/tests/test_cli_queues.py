"""`operon queues`: what it shows is what holds, and what it changes holds until it is reset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operon import Operon, enqueue
from operon.cli import main


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'queues.db'}"


@pytest.fixture
def app(url: str) -> Iterator[Operon]:
    app = Operon("listed", database=url)
    queue = app.queue("emails", concurrency=3, rate=(5, 60))
    app.queue("other")

    @app.workflow(name="send")
    def send(number: int) -> int:
        return number

    with app:
        queue.pause()
        enqueue(queue, send, 1)
        yield app


def shown(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> list[Any]:
    assert main(["queues", *arguments, "--database", url, "--json"]) == 0
    found: list[Any] = json.loads(capsys.readouterr().out)
    return found


def test_queues_are_listed_changed_and_reset(app: Operon, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    emails, other = shown(capsys, url, "list")
    assert (emails["name"], emails["paused"], emails["queued"], emails["running"]) == ("emails", True, 1, 0)
    assert (emails["concurrency"], emails["rate"], emails["edited"]) == (3, [5, 60.0], False)
    assert (other["concurrency"], other["rate"]) == (None, None)
    (emails,) = shown(capsys, url, "set", "emails", "--concurrency", "7", "--partition-rate", "10/m")
    assert (emails["concurrency"], emails["rate"], emails["partition_rate"]) == (7, None, [10, 60.0])
    assert emails["edited"]
    (emails,) = shown(capsys, url, "reset", "emails")
    assert (emails["concurrency"], emails["edited"]) == (3, False)
    both = shown(capsys, url, "pause", "emails", "other")
    assert [it["paused"] for it in both] == [True, True]
    assert [it["paused"] for it in shown(capsys, url, "resume", "emails", "other")] == [False, False]
    assert main(["queues", "list", "--database", url]) == 0
    assert "3 at a time, 5 in 60 s" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["pause", "nope"], 1, "There is no queue 'nope'"),
        (["set", "emails", "--concurrency", "0"], 1, "concurrency=0"),
        (["set", "emails", "--rate", "5/0"], 1, "above 0"),
        (["set", "emails", "--rate", "fast"], 2, "100/m"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    app: Operon, url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["queues", *arguments, "--database", url]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert shown(capsys, url, "list")[0]["concurrency"] == 3
