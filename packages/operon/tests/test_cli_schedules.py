"""`operon schedules`: what it shows is what holds, and what it starts is started once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from children import eventually
from operon import Operon, find, schedules
from operon.cli import main


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'schedules.db'}"


@pytest.fixture
def app(url: str) -> Iterator[Operon]:
    app = Operon("scheduled", database=url)

    @app.schedule("0 9 * * MON", tz="Europe/London")
    @app.workflow(name="weekly")
    def weekly(at: datetime) -> str:
        return at.isoformat()

    @app.workflow(name="send")
    def send(user: str) -> str:
        return user

    with app:
        half_an_hour_away = (datetime.now(UTC).minute + 30) % 60  # so that none comes due while a test looks
        schedules.create("send-acme", f"{half_an_hour_away} * * * *", send.bind("acme"), overlap="queue")
        yield app


def shown(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> Any:
    assert main(["schedules", *arguments, "--database", url, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def said(capsys: pytest.CaptureFixture[str], url: str, *arguments: str) -> str:
    assert main(["schedules", *arguments, "--database", url]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_schedules_are_listed_paused_resumed_and_deleted(
    app: Operon, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    acme, weekly = shown(capsys, url, "list")
    assert (acme["name"], acme["declared"], acme["input"], acme["overlap"]) == (
        "send-acme",
        False,
        {"user": "acme"},
        "queue",
    )
    assert (weekly["function"], weekly["declared"], weekly["cron"], weekly["tz"]) == (
        "weekly",
        True,
        "0 9 * * MON",
        "Europe/London",
    )
    assert datetime.fromisoformat(weekly["next_at"]).hour == 9
    both = shown(capsys, url, "pause", "weekly", "send-acme")
    assert [(it["name"], it["paused"], it["next_at"]) for it in both] == [
        ("weekly", True, None),
        ("send-acme", True, None),
    ]
    assert said(capsys, url, "pause", "weekly") == "weekly is paused."
    assert "paused" in said(capsys, url, "list")
    assert said(capsys, url, "resume", "weekly").startswith("weekly is open; next 20")
    assert said(capsys, url, "delete", "send-acme") == "send-acme is deleted."
    assert [it["name"] for it in shown(capsys, url, "list")] == ["weekly"]


def test_a_schedule_is_triggered_and_filled_in(app: Operon, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (key,) = shown(capsys, url, "trigger", "weekly")
    eventually(lambda: [row.id for row in find(name="weekly", status="succeeded")] == [key])
    keys = shown(capsys, url, "backfill", "send-acme", "--since", "3h")
    assert len(keys) == 3
    assert shown(capsys, url, "backfill", "send-acme", "--since", "3h") == keys
    until = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    assert shown(capsys, url, "backfill", "send-acme", "--since", "3h", "--until", until) == keys[:1]
    assert said(capsys, url, "backfill", "send-acme", "--since", "3h") == " ".join(keys)
    eventually(lambda: len(find(name="send", status="succeeded")) == 3)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["pause", "nope"], 1, "There is no schedule 'nope'"),
        (["resume", "nope"], 1, "There is no schedule 'nope'"),
        (["trigger", "nope"], 1, "There is no schedule 'nope'"),
        (["delete", "nope"], 1, "There is no schedule 'nope'"),
        (["backfill", "nope", "--since", "1d"], 1, "There is no schedule 'nope'"),
        (["backfill", "weekly"], 2, "--since"),
        (["backfill", "weekly", "--since", "soon"], 2, "how long ago"),
        (["backfill", "weekly", "--since", "1d", "--until", "2999-01-01"], 1, "still to come"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    app: Operon, url: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, why: str
) -> None:
    assert main(["schedules", *arguments, "--database", url]) == code
    assert why in " ".join(capsys.readouterr().err.split())


def test_none_are_none(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Operon("empty", database=url):
        assert said(capsys, url, "list") == "No schedules."
