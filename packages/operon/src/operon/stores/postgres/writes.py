"""Starts and advances, alone or in company: one statement and one commit each time. Knows no threads, never retries."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, cast

from msgspec.structs import astuple
from psycopg.errors import SerializationFailure

from operon.core import sql
from operon.core.commands import Advance, LaneCommand, Start
from operon.core.rows import Advanced, Entry, NewWorkflow, Outcome, Park, Started
from operon.core.states import Status, status_of
from operon.stores.postgres.columns import ENDED, FIELDS, Columns, end_values, start_parameters
from operon.stores.postgres.session import BINARY, SQL, Row, Session, Values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGresult

Answer: TypeAlias = Started | Advanced

TURNS = 5
"""Once is enough, and twice when another commits in the middle of the statement."""
WRITTEN = Advanced(written=True)


def perform(session: Session, commands: Sequence[LaneCommand], *, again: bool = False) -> list[Answer]:
    """Carry out commands of different workflows in one commit; the answers are in their order.

    `again` says that the same commands may have been committed by a connection that was lost.
    """
    if len(commands) == 1 and not again and (answer := alone(session, commands[0])):
        return [answer]
    answers = attempt(session, commands, again=again)
    for _ in range(TURNS - 1):
        if all(answers):
            break
        missing = [op for op, answer in enumerate(answers) if answer is None]
        others = attempt(session, [commands[op] for op in missing], again=again)
        for op, answer in zip(missing, others, strict=True):
            answers[op] = answer
    found = [answer for answer in answers if answer]
    if len(found) < len(commands):
        raise SerializationFailure("others came in between, again and again")
    return found


# ── Alone ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def alone(session: Session, command: LaneCommand) -> Answer | None:
    """Carry out one command by the shortest statement; None when it did nothing and `Batch` is to find out why."""
    if isinstance(command, Start):
        return start(session, command.row)
    end, entries = command.end, command.entries
    if len(entries) > 1 or (isinstance(end, Park) and end.awaits):
        return None
    parameters: Row = {"workflow_id": command.workflow_id, "claim": command.claim}
    if entries and end:
        name = "write_and_finish"
        parameters |= entry_parameters(entries[0]) | {f"end_{key}": value for key, value in end_parameters(end).items()}
    elif entries:
        name = "write"
        parameters |= entry_parameters(entries[0])
    elif end:
        name = "finish"
        parameters |= end_parameters(end)
    else:
        return None
    result = session.run(name, *plain(name, parameters))
    if not result.ntuples:
        return None
    instants = (float(cell(result, 0, 0)),) if entries and entries[0].after is not None else ()
    return Advanced(written=True, parked=isinstance(end, Park), instants=instants)


def start(session: Session, row: NewWorkflow) -> Started | None:
    """Insert a workflow, or fetch what has its id."""
    result = session.run("start", *plain("start", start_parameters(row)))
    if not result.ntuples:
        return None
    nonce, status, output, error, name, digest, key, erased = (optional(result, 0, column) for column in range(8))
    if status is None:
        return begun(row)
    if key != row.id and row.parent:
        return None
    found: Row = {"nonce": int(nonce or 0), "status": int(status), "erased": None if erased is None else float(erased)}
    return existing(row, found | {"output": output, "error": error, "name": name, "digest": digest, "id": key})


def begun(row: NewWorkflow) -> Started:
    """Say that a workflow is inserted."""
    status = Status.QUEUED if row.executor is None else Status.RUNNING
    return Started(created=True, outcome=Outcome(status), name=row.name, digest=row.digest)


def existing(row: NewWorkflow, found: Row) -> Started:
    """Say what is there; with my nonce it is mine, and its answer was lost."""
    other = None if found["id"] == row.id else found["id"]
    return Started(found["nonce"] == row.nonce, outcome(found), found["name"], found["digest"], id=other)


def outcome(row: Row) -> Outcome:
    """Say where a workflow stands."""
    code: int = row["status"]
    return Outcome(status_of(code), row["output"], row["error"], row["erased"])


# ── In company ───────────────────────────────────────────────────────────────────────────────────────────────────────


def attempt(session: Session, commands: Sequence[LaneCommand], *, again: bool) -> list[Answer | None]:
    """Carry out commands in one statement, and say what came of each; None: it is to be sent once more."""
    columns = Columns(commands)
    result = send(session, columns)
    if result.ntuples == 1:
        # All went through, and nothing but the clock is told.
        if not (columns.starts or columns.parks or columns.timed):
            return [WRITTEN] * len(commands)
        now = float(cell(result, 0, 3))
        return [begun(command.row) if isinstance(command, Start) else done(command, now) for command in commands]
    found = Found(result)
    return [found.answer(session, op, command, again=again) for op, command in enumerate(commands)]


def send(session: Session, columns: Columns) -> PGresult:
    """Run the statement that suffices."""
    ids = columns.ids()
    if columns.only_entries:
        return session.run("records", [ids, *columns.entry], BINARY * (1 + len(columns.entry)))
    values = [ids, *columns.all()]
    if columns.awaits:
        return session.run_both(("lock_rows", [ids]), ("batch", values))
    return session.run("batch", values, BINARY * len(values))


def done(command: Advance, now: float) -> Advanced:
    """Say that an advance went through, at an instant."""
    instants = tuple([now + entry.after for entry in command.entries if entry.after is not None])
    return Advanced(written=True, parked=isinstance(command.end, Park), instants=instants)


class Found:
    """What did not go through, or had before."""

    def __init__(self, result: PGresult) -> None:
        self.now = 0.0
        self.unstarted: set[str] = set()
        self.same: dict[tuple[int, str], str | None] = {}
        self.refused: set[int] = set()
        self.lacking: set[int] = set()
        self.stayed: set[int] = set()
        for line in range(result.ntuples):
            match cell(result, line, 0):
                case "clock":
                    self.now = float(cell(result, line, 3))
                case "unstarted":
                    self.unstarted.add(cell(result, line, 2))
                case "same":
                    self.same[int(cell(result, line, 1)), cell(result, line, 2)] = optional(result, line, 3)
                case what:
                    ops: set[int] = getattr(self, what)
                    ops.add(int(cell(result, line, 1)))

    def answer(self, session: Session, op: int, command: LaneCommand, *, again: bool) -> Answer | None:
        """Say what came of a command; None when others were in between, and it is to be sent once more."""
        if isinstance(command, Start):
            return fetch(session, command.row) if command.row.id in self.unstarted else begun(command.row)
        if op in self.refused:
            return verify(session, command) if again else Advanced(written=False)
        end = command.end
        may_stay = isinstance(end, Park) and end.awaits
        if op in self.lacking or (op in self.stayed and not may_stay):
            return None
        instants = tuple(
            float(self.same.get((op, entry.position)) or self.now + entry.after)
            for entry in command.entries
            if entry.after is not None
        )
        return Advanced(written=True, parked=isinstance(end, Park) and op not in self.stayed, instants=instants)


def fetch(session: Session, row: NewWorkflow) -> Started | None:
    """Say why a start inserted nothing; a newer snapshot than the batch's shows it."""
    (found,) = session.rows("started", **start_parameters(row))
    if found["id"] != row.id and row.parent and not found["allowed"]:
        return Started(created=False, outcome=Outcome(Status.CANCELLED), name="", digest="", refused=True)
    return None if found["nonce"] is None else existing(row, found)


def verify(session: Session, command: Advance) -> Advanced:
    """Decide whether it was this very advance, through a connection that was lost, that took the claim away.

    Entries and end are one commit, and only this advance writes these positions under this claim: so they tell.
    Without entries the workflow itself does.
    """
    positions = [entry.position for entry in command.entries]
    rows = session.rows("verify", workflow_id=command.workflow_id, claim=command.claim, positions=positions)
    recorded = {row["position"]: row["recorded"] for row in rows if row["position"]}
    end = command.end
    written = bool(positions) and set(positions) <= recorded.keys()
    if end and rows and not positions:
        wanted = {"claim": command.claim, **end_parameters(end)}
        written = all(rows[0][key] == wanted[key] for key in ("claim", "status", "output", "error"))
    delayed = (entry.position for entry in command.entries if written and entry.after is not None)
    return Advanced(
        written=written,
        parked=written and isinstance(end, Park),
        instants=tuple(float(recorded[position]) for position in delayed),
    )


# ── Spelling ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def entry_parameters(entry: Entry) -> Row:
    """Spell an entry."""
    return dict(zip(FIELDS, astuple(entry), strict=False))


def end_parameters(end: Outcome | Park) -> Row:
    """Spell an end."""
    return dict(zip(ENDED, end_values(end), strict=True))


def plain(name: str, parameters: Row) -> tuple[Values, list[int]]:
    """Put a statement's values in order, each with its format: text is binary, where a NUL is no end."""
    values = [parameters[key] for key in sql.parameters(SQL[name])]
    spelled = [None if value is None else str(value).encode() for value in values]
    return cast("Values", spelled), [int(isinstance(value, str)) for value in values]


def optional(result: PGresult, line: int, column: int) -> str | None:
    """Read a cell that may be null."""
    value = result.get_value(line, column)
    return None if value is None else value.decode()


def cell(result: PGresult, line: int, column: int) -> str:
    """Read a cell that is not null."""
    return (result.get_value(line, column) or b"").decode()
