"""What is asked of the workflows is answered from their rows, whatever is written in them."""

from __future__ import annotations

import json

import pytest

from conformance.world import World, step
from operon.core.commands import Count, Describe, Find, Load, Look
from operon.core.rows import Filter, Outcome
from operon.core.states import Status

HOSTILE = (
    "'; drop table operon_workflows; --",
    "\"double\" 'single' `back` \\ %s %(x)s $1 :name ?",
    "{braces} $$dollars$$ /* comment */ -- dash",
    "🦆 \u202e عربى 中文 ﷽",
    "e\u0301 is not \u00e9",
    " leading and trailing ",
    "null",
    "🦆" * 255,
)


def find(world: World, **filters: object) -> list[str]:
    wanted = Filter(**filters)  # type: ignore[arg-type]  # the tests name the fields
    found = [row.id for row in world.ask(Find(wanted))]
    assert world.ask(Count(wanted)) == len(found)
    return found


def populate(world: World) -> list[float]:
    """Start a, b, c and d, ten seconds apart; give their times."""
    parent = world.run("a", user="ada", attributes='{"tenant": "acme", "size": 3, "vip": true}')
    world.pass_time(10)
    world.start("b", name="other", user="bob", attributes='{"tenant": "acme", "size": 30, "none": null}')
    world.pass_time(10)
    world.start("c", parent=parent, user="ada", attributes='{"tags": ["x", {"y": 1}], "tenant": "\\u0000\'"}')
    world.pass_time(10)
    world.end(world.run("d"), Outcome(Status.SUCCEEDED, output="1"))
    return [world.row(key).created_at for key in "abcd"]


def test_all_are_found_newest_first(world: World) -> None:
    assert find(world) == []
    populate(world)
    assert find(world) == ["d", "c", "b", "a"]
    assert world.ask(Find(Filter(name="other"))) == (world.row("b"),)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"name": "other"}, "b"),
        ({"name": "nobody"}, ""),
        ({"status": (Status.QUEUED,)}, "cb"),
        ({"status": (Status.RUNNING, Status.SUCCEEDED)}, "da"),
        ({"status": ()}, ""),
        ({"parent": "a"}, "c"),
        ({"user": "ada"}, "ca"),
        ({"user": "ada", "status": (Status.RUNNING,)}, "a"),
        ({"attributes": (("tenant", '"acme"'),)}, "ba"),
        ({"attributes": (("tenant", '"acme"'), ("size", "3"))}, "a"),
        ({"attributes": (("size", '"3"'),)}, ""),
        ({"attributes": (("vip", "true"),)}, "a"),
        ({"attributes": (("none", "null"),)}, "b"),
        ({"attributes": (("missing", "null"),)}, ""),
        ({"attributes": (("tags", '["x", {"y": 1}]'),)}, "c"),
        ({"attributes": (("tags", '["x"]'),)}, ""),
        ({"attributes": (("tenant", '"\\u0000\'"'),)}, "c"),
    ],
)
def test_a_filter_finds_what_it_says(world: World, wanted: dict[str, object], found: str) -> None:
    populate(world)
    assert find(world, **wanted) == [*found]


def test_a_span_of_time_has_its_beginning_and_not_its_end(world: World) -> None:
    times = populate(world)
    assert find(world, since=times[1]) == ["d", "c", "b"]
    assert find(world, until=times[1]) == ["a"]
    assert find(world, since=times[1], until=times[3]) == ["c", "b"]


def test_pages_cover_everything_once_though_more_is_started_meanwhile(world: World) -> None:
    """A page continues behind the last row of the one before, not at a number of rows."""
    for n in range(10):
        world.start(f"w{n}")
    pages, after = list[str](), None
    while page := world.ask(Find(Filter(limit=3, after=after))):
        pages += [row.id for row in page]
        after = (page[-1].created_at, page[-1].id)
        world.start(f"late{len(pages)}")
    assert pages == [f"w{n}" for n in reversed(range(10))]


def test_a_count_knows_no_limit(world: World) -> None:
    populate(world)
    assert world.ask(Count(Filter(limit=1))) == 4
    assert world.ask(Count(Filter(limit=1, user="ada"))) == 2


def test_a_look_leaves_out_what_is_unknown(world: World) -> None:
    populate(world)
    assert world.ask(Look(("d", "nobody", "a"))) == {
        "a": Outcome(Status.RUNNING),
        "d": Outcome(Status.SUCCEEDED, output="1"),
    }
    assert world.ask(Look(())) == {}
    assert world.ask(Describe("nobody")) is None


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_comes_back_as_it_went(world: World, text: str) -> None:
    """Ids, names and labels are data, never SQL, and no store trims, folds or cuts them."""
    label = json.dumps(text)
    guard = world.run(text, name=text, user=text, input=label, attributes=json.dumps({text: text}))
    world.write(guard, step("1", name=text, output=label, error=text, child=text))
    world.end(world.run("sleeper", parent=guard), Outcome(Status.FAILED, error=text))
    assert find(world, name=text, user=text, attributes=((text, label),)) == [text]
    assert find(world, parent=text) == ["sleeper"]
    assert world.ask(Look((text, "sleeper"))).keys() == {text, "sleeper"}
    (entry,) = world.ask(Load(text))
    assert (entry.name, entry.output, entry.error, entry.child) == (text, label, text, text)
    assert (world.row(text).input, world.row("sleeper").error) == (label, text)


@pytest.mark.parametrize("text", ['"\\u0000"', '"\\ud83e\\udd86"', '"\\ud800"', "1e400", "[" * 500 + "]" * 500])
def test_a_value_is_text_and_never_looked_into(world: World, text: str) -> None:
    """A NUL in an escape, half a pair, an infinite number: what the codec wrote is what it reads."""
    guard = world.run("w", input=text)
    world.write(guard, step("1", output=text), end=Outcome(Status.SUCCEEDED, output=text))
    assert (world.row().input, world.row().output, world.ask(Load("w"))[0].output) == (text, text, text)


def test_a_large_value_is_kept_whole(world: World) -> None:
    text = json.dumps("x🦆" * 1_000_000)
    world.end(world.run("w", input=text), Outcome(Status.SUCCEEDED, output=text))
    assert world.row().input == world.row().output == text
