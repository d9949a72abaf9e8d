"""Many commands as the columns of one statement, in one pass; it must not know what the statement does with them."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

from msgspec.structs import astuple

from operon.core.commands import LaneCommand, Start
from operon.core.rows import Entry, NewWorkflow, Outcome, Park, workflow_parameters
from operon.core.states import Status
from operon.stores.postgres.arrays import Pack, bigints, floats, ints, texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from operon.stores.postgres.session import Row

Owner: TypeAlias = tuple[int, str, int]
"""The number of an advance, its workflow and its claim."""
OP: dict[str, Pack] = {"op": ints, "workflow_id": texts, "claim": bigints}
FIELDS: dict[str, Pack] = {
    "position": texts, "ordinal": ints, "kind": texts, "name": texts, "digest": texts, "output": texts,
    "error": texts, "child": texts, "after": floats, "elapsed": floats, "attempt": ints, "version": texts,
    "isolation": texts,
}  # fmt: skip
"""The fields of an entry that are written, as they stand in it; those behind them the store fills."""
AWAIT: dict[str, Pack] = {"op": ints, "workflow_id": texts, "id": texts, "quiet": ints}
ENDED: dict[str, Pack] = {"status": ints, "output": texts, "error": texts, "ready_at": floats, "cleaner": bigints}
START: dict[str, Pack] = {
    "id": texts, "executor": bigints, "delay": floats, "timeout": floats, "deadline": floats, "nonce": bigints,
    "name": texts, "digest": texts, "version": texts, "pin": texts, "instance": texts, "parent": texts,
    "parent_claim": bigints, "root": texts, "user": texts, "roles": texts, "request_id": texts, "traceparent": texts,
    "attributes": texts, "input": texts, "queue": texts, "partition": texts, "priority": ints, "dedupe": texts,
}  # fmt: skip
GROUPS: dict[str, dict[str, Pack]] = {
    "entry": OP | FIELDS, "op": OP, "await": AWAIT, "end": OP | ENDED, "start": START,
}  # fmt: skip
"""The statement's parameters: what comes of entries, of advances, and so on, each with how it is packed."""
NOTHING = {name: [pack(()) for pack in columns.values()] for name, columns in GROUPS.items()}
KEY = list(GROUPS["entry"]).index("workflow_id")
AFTER = list(GROUPS["entry"]).index("after")
in_order = itemgetter(*START)


class Columns:
    """The parameters for commands; where one is in the list is its number, `op`."""

    def __init__(self, commands: Sequence[LaneCommand]) -> None:
        self.starts: list[NewWorkflow] = []
        self.ends: list[tuple[Any, ...]] = []
        self.awaits: list[tuple[Any, ...]] = []
        self.parks = False
        self._ops: list[Owner] = []
        self._owners: list[Owner] = []
        """Whose each entry is."""
        self._entries: list[Entry] = []
        for op, command in enumerate(commands):
            if isinstance(command, Start):
                self.starts.append(command.row)
                continue
            owner = (op, command.workflow_id, command.claim)
            self._ops.append(owner)
            entries = command.entries
            if len(entries) == 1:
                self._owners.append(owner)
                self._entries.append(entries[0])
            else:
                self._owners += [owner] * len(entries)
                self._entries += entries
            if command.end is not None:
                self._end(owner, command.end)
        self._alike = self._owners == self._ops
        """Each advance has one entry: what is said of advances and of entries is the same."""
        columns = [*zip(*self._owners, strict=True), *zip(*map(astuple, self._entries), strict=True)]
        self.timed = bool(columns) and columns[AFTER].count(None) < len(self._entries)
        """Whether an entry records the store's clock."""
        self.entry = packed("entry", columns)

    @property
    def only_entries(self) -> bool:
        """Whether nothing is to be done but to write entries, one of each command at least."""
        return not (self.starts or self.ends) and (self._alike or {*self._ops} == {*self._owners})

    def _end(self, owner: Owner, end: Outcome | Park) -> None:
        self.ends.append((*owner, *end_values(end)))
        if isinstance(end, Park):
            self.parks = True
            op, workflow_id, _ = owner
            self.awaits += [(op, workflow_id, key, int(key in end.quiet)) for key in end.awaits]

    def ids(self) -> bytes:
        """Pack the keys of all rows that the commands depend on."""
        if self._alike and not (self.starts or self.awaits):
            return self.entry[KEY]
        rows = {key for _, key, _ in self._ops}
        rows.update(row[2] for row in self.awaits)
        rows.update(row.parent.workflow_id for row in self.starts if row.parent)
        return texts([*rows])

    def all(self) -> list[bytes]:
        """Pack every group, in the statement's order."""
        op = self.entry[: len(OP)] if self._alike else packed("op", zip(*self._ops, strict=True))
        starts = [in_order(start_parameters(row)) for row in self.starts]
        groups = (
            self.entry,
            op,
            packed("await", zip(*self.awaits, strict=True)),
            packed("end", zip(*self.ends, strict=True)),
            packed("start", zip(*starts, strict=True)),
        )
        return [column for group in groups for column in group]


def packed(group: str, columns: Iterable[Sequence[Any]]) -> list[bytes]:
    """Pack a group's columns; what the last of them are not wanted for is left out."""
    return [pack(column) for pack, column in zip(GROUPS[group].values(), columns, strict=False)] or NOTHING[group]


def start_parameters(row: NewWorkflow) -> Row:
    """Spell a new workflow."""
    claim = row.parent.claim if row.parent else None
    return {**workflow_parameters(row), "executor": row.executor, "parent_claim": claim}


def end_values(end: Outcome | Park) -> tuple[int, str | None, str | None, float | None, int | None]:
    """Spell an end, as `ENDED` has it: a park is one too, to wait until an instant."""
    if isinstance(end, Park):
        return Status.WAITING.code, None, None, end.ready_at, None
    return end.status.code, end.output, end.error, None, end.cleaner
