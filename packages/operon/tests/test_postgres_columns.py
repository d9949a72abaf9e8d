"""The columns of a batch: each short way of packing gives what the long one does, and the statement's order is kept."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from conformance.world import SUCCESS, start, step
from operon.core import sql
from operon.core.commands import Advance, LaneCommand
from operon.core.rows import Entry, Guard, Kind, Park
from operon.stores.postgres import columns
from operon.stores.postgres.arrays import bigints, floats, ints, texts
from operon.stores.postgres.columns import Columns
from operon.stores.postgres.session import SQL

TEXTS: list[list[str | None]] = [
    [],
    [None],
    [""],
    ["a"],
    [None, None, None],
    ["same", "same"],
    [Kind.STEP, "step"],
    ["a", None, "a"],
    ["a", "bc", ""],
    ["x" * 127, "y"],
    ["x" * 128, "y"],
    ["x" * 200_000, "y", "x" * 127],
    ["ä", "a"],
    ["ä", "ä"],
    ["\u20ac" * 60, "\u0100" * 127, None],
    ["\x7f" * 127, "\x00"],
]
NUMBERS: list[list[Any]] = [[], [None], [0], [7, 7, 7], [None, None], [1, None, 1], [1, 2, 3], [*range(300)], [-1, 2]]


def long_way(type_: int, values: Sequence[Any], spell: Callable[[Any], bytes]) -> bytes:
    """Pack an array item by item, as the protocol's description has it."""
    if not values:
        return struct.pack("!iii", 0, 0, type_)
    items = [None if value is None else spell(value) for value in values]
    packed = [struct.pack("!i", -1) if item is None else struct.pack("!i", len(item)) + item for item in items]
    return struct.pack("!iiiii", 1, 1, type_, len(values), 1) + b"".join(packed)


@pytest.mark.parametrize("values", TEXTS, ids=lambda it: repr(it)[:30])
def test_texts_are_packed_alike_by_every_way(values: list[str | None]) -> None:
    assert texts(values) == long_way(25, values, str.encode)
    assert texts(tuple(values)) == texts(values)


@pytest.mark.parametrize("values", NUMBERS, ids=lambda it: repr(it)[:30])
def test_numbers_are_packed_alike_by_every_way(values: list[Any]) -> None:
    assert ints(values) == long_way(23, values, lambda value: struct.pack("!i", value))
    assert bigints(values) == long_way(20, values, lambda value: struct.pack("!q", value))
    assert floats(values) == long_way(701, values, lambda value: struct.pack("!d", value))


def test_what_cannot_be_packed_is_refused_by_every_way() -> None:
    for values in (["\ud800"], ["\ud800", "\ud800"], ["\ud800", "a"], ["\ud800", None, "a"]):
        with pytest.raises(UnicodeEncodeError):
            texts(values)
    for numbers in ([2**31], [2**31, 2**31], [1, 2**31], [None, 2**31, 1]):
        with pytest.raises(struct.error):
            ints(numbers)


def test_columns_are_in_the_statements_order() -> None:
    expected = [f"{group}_{name}" for group, names in columns.GROUPS.items() for name in names]
    assert list(sql.parameters(SQL["batch"])) == ["ids", *expected]
    of_entries = len(columns.GROUPS["entry"])
    assert list(sql.parameters(SQL["records"])) == ["ids", *expected[:of_entries]]


def test_records_are_written_in_the_words_of_the_batch() -> None:
    """A rule that is changed in one of the two statements is changed in the other."""
    batch = {part.partition(" as ")[0]: part for part in SQL["batch"].split("\n), ")}
    parts = SQL["records"].partition("\n)\nselect")[0].split("\n), ")
    names = [part.partition(" as ")[0] for part in parts]
    assert names == ["with locked", "clock", "entry", "known", "refused", "written", "lacking"]
    assert [part for name, part in zip(names, parts, strict=True) if name != "refused" and part != batch[name]] == []
    assert {*SQL["records"].splitlines()} - {*SQL["batch"].splitlines()} == {
        "    where (workflow_id, claim) not in (select id, claim from locked where status = 1)"
    }


@pytest.mark.parametrize(
    ("commands", "only"),
    [
        ([Advance("a", 1, (step("1"),)), Advance("b", 1, (step("1"), step("2")))], True),
        ([Advance("a", 1, (step("1"),)), Advance("b", 1)], False),
        ([Advance("a", 1, (step("1"),), SUCCESS)], False),
        ([Advance("a", 1, (step("1"),)), start("b")], False),
        ([start("b")], False),
    ],
    ids=["entries", "bare", "end", "beside a start", "start"],
)
def test_what_only_writes_is_known(commands: list[LaneCommand], *, only: bool) -> None:
    assert Columns(commands).only_entries == only


def test_every_row_that_is_depended_on_is_locked() -> None:
    commands = [Advance("a", 1, (step("1"),)), Advance("b", 1, (step("1"), step("2")))]
    assert Columns(commands).ids() in {texts(["a", "b"]), texts(["b", "a"])}
    assert Columns(commands[:1]).ids() == texts(["a"])
    others: list[LaneCommand] = [start("c", parent=Guard("p", 1)), Advance("a", 1, (step("1"),), Park(None, ("x",)))]
    assert len(Columns(others).ids()) == len(texts(["a", "x", "p"]))


def test_entries_are_taken_apart_in_the_order_of_their_fields() -> None:
    assert list(columns.FIELDS) == list(Entry.__struct_fields__[: len(columns.FIELDS)])
    assert set(Entry.__struct_fields__[len(columns.FIELDS) :]) == {"started_at", "ended_at"}


COMMANDS: list[list[LaneCommand]] = [
    [Advance("a", 1, (step("1"),)), Advance("b", 2, (step("1", after=1.0),))],
    [Advance("a", 1, (step("1"), step("2"))), Advance("b", 2), Advance("c", 3, (step("1"),), SUCCESS)],
    [start("a", executor=5), Advance("b", 2, (step("1"),), Park(None, ("x", "y"), ("y",)))],
    [Advance("a", 1, (), Park(9.5)), start("b", parent=Guard("p", 7), roles=("r",)), start("c", priority=3)],
    [start("a")],
]


@pytest.mark.parametrize("commands", COMMANDS, ids=["entries", "bare", "park", "starts", "start"])
def test_every_command_is_in_its_columns(commands: list[LaneCommand]) -> None:
    """Row by row, as a reader would write it down."""
    rows: dict[str, list[dict[str, Any]]] = {group: [] for group in columns.GROUPS}
    for op, command in enumerate(commands):
        if not isinstance(command, Advance):
            rows["start"].append(columns.start_parameters(command.row))
            continue
        owner = {"op": op, "workflow_id": command.workflow_id, "claim": command.claim}
        rows["op"].append(owner)
        rows["entry"] += [owner | {name: getattr(entry, name) for name in columns.FIELDS} for entry in command.entries]
        if command.end is not None:
            rows["end"].append(owner | dict(zip(columns.ENDED, columns.end_values(command.end), strict=True)))
        if isinstance(command.end, Park):
            quiet = command.end.quiet
            rows["await"] += [owner | {"id": key, "quiet": int(key in quiet)} for key in command.end.awaits]
    expected = [
        pack([row[name] for row in rows[group]])
        for group, names in columns.GROUPS.items()
        for name, pack in names.items()
    ]
    assert Columns(commands).all() == expected
