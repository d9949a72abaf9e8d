"""Which indexes Postgres takes where there are ten million workflows: no statement of the store reads them all.

The rows are few. What the planner goes by is made large: the files, by a hole behind their last page, and the counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from operon.core import sql
from operon.embedded import Postgres
from operon.stores.postgres import PostgresStore
from operon.stores.postgres.lane import SETTINGS
from operon.stores.postgres.session import INDEXED, SQL, checked
from operon.stores.postgres.store import USERS

TIMES: Final = 500
"""So many times larger than they are the tables seem to be."""
SEGMENT: Final = 1 << 30
LARGE: Final = ("workflows", "steps", "awaits")
ALIVE: Final = frozenset(
    f"workflows_{name}" for name in ("ready", "running", "line", "due", "admitted", "cleanups", "emptying")
)
"""Indexes that hold what is alive or to be swept, and few of all: they may be read from one end."""

FILL: Final = """
insert into operon.executors (lease_until, pid, app, host, born, version, alive)
select now() + interval '1 hour', g, 'shop', 'here', 'boot:1', 'v', g <= 8 from generate_series(1, 10) g;
insert into operon.queues (name, app, concurrency, rate, period)
select 'queue' || g, 'shop', 100, 100, 60 from generate_series(0, 3) g;
insert into operon.workflows (
    id, status, name, digest, version, input, nonce, queue, partition, rank, ready_at, created_at, ended_at, parent,
    "user", attributes, executor, erased, cleanup_until, dedupe
)
select
    'w' || g, status, 'name' || g % 5, 'd', 'v', '["an order", "a customer", "a basket of 12 things"]', g, queue,
    'p' || g % 3, at,
    case when status = 0 and queue is null then at when status = 2 then at + interval '1 year' end,
    at, case when status > 3 then at end, case when g % 10 = 0 then 'w' || g - 1 end, 'user' || g % 1000,
    case when g % 50 = 0 then '{"label": 1}' end, case when status = 1 then 1 + g % 10 end,
    case when status < 4 then 0 when g % 7 = 0 then 2 when g % 1999 = 0 then 1 else 0 end,
    case when status > 3 and g % 2003 = 0 then now() + interval '1 hour' end,
    case when g % 100 = 0 then 'd' || g end
from (
    select
        g, now() - make_interval(secs => g) as at, case when g % 3 = 0 then 'queue' || g % 4 end as queue,
        case when g % 1000 < 10 then g % 1000 % 4 * 3 / 4 when g % 19 = 0 then 5 when g % 23 = 0 then 6 else 4 end
            as status
    from generate_series(1, 20000) g
) as it;
insert into operon.steps (
    workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, output
)
select 'w' || g, n, n, 1, 1, now(), now(), 'step', 'fetch', 'd', 'v', '1'
from generate_series(1, 20000) g, generate_series(1, 2) n;
insert into operon.awaits (workflow_id, awaited)
select id, 'w' || nonce - 1 from operon.workflows where status = 2;
insert into operon.wakes select 'w' || g from generate_series(1, 20) g;
insert into operon.admissions
select 'queue' || g % 4, 'p' || g % 3, now() - make_interval(secs => g / 10.0) from generate_series(1, 200) g;
"""
FILES: Final = """
with relation as (
    select oid from pg_class where relnamespace = 'operon'::regnamespace and relname = any(%(large)s)
    union
    select indexrelid from pg_index join pg_class c on c.oid = indrelid
    where relnamespace = 'operon'::regnamespace and relname = any(%(large)s)
)
select current_setting('data_directory') || '/' || pg_relation_filepath(oid), pg_relation_size(oid), oid from relation
"""
GROW: Final = """
update pg_class
set reltuples = reltuples * %(times)s, relpages = relpages * %(times)s, relallvisible = relallvisible * %(times)s
where oid = %(oid)s
"""
SAMPLES: Final = {
    "text": "w17", "bigint": "1", "integer": "1", "smallint": "1", "double precision": "1", "boolean": "true",
    "text[]": "{w17,w18}", "bigint[]": "{1,2}", "integer[]": "{1,2}", "double precision[]": "{1,2}",
}  # fmt: skip
"""A value of each type, for a plan that is made for these values alone."""
VALUES: Final = {
    "limit": "100", "name": "name1", "names": "{name1,name2}", "queue": "queue1", "queues": "{queue1,queue2}",
    "partition": "p1", "statuses": "{4,5}", "dedupe": "d100", "parent": None, "parent_claim": None,
}  # fmt: skip

PLAIN: Final = {"beat", *USERS}
"""What is executed on a connection that may read as it likes."""

Node = dict[str, Any]
Values = Mapping[str, str | None]


def enlarge(path: Path, size: int) -> None:
    """Put a hole behind a relation's last page; more than a gigabyte goes on in the next file."""
    owner = path.stat()
    for number in range(-(-size // SEGMENT)):
        file = path.with_name(f"{path.name}.{number}") if number else path
        file.touch()
        os.chown(file, owner.st_uid, owner.st_gid)
        os.truncate(file, min(size - number * SEGMENT, SEGMENT))


@pytest.fixture(scope="module")
def large(counting_postgres: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A database with ten million workflows, as far as its planner knows."""
    url = counting_postgres.create_database("large")
    with closing(PostgresStore(url)) as store:
        store.open()
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        connection.execute(FILL.encode())
        connection.execute("vacuum analyze")
        for path, size, oid in connection.execute(FILES, {"large": [*LARGE]}).fetchall():
            enlarge(Path(path), size * TIMES)
            connection.execute(GROW, {"times": TIMES, "oid": oid})
        connection.execute("set jit = off")
        yield connection
    counting_postgres.drop_database("large")


def prepared(connection: psycopg.Connection[Any], name: str) -> list[str]:
    """Prepare a statement of the store as it does itself, and give the types of its parameters."""
    connection.execute("deallocate all")
    checked(connection.pgconn.prepare(b"it", sql.numbered(SQL[name]).encode()))
    row = connection.execute("select parameter_types::text[] from pg_prepared_statements where name = 'it'").fetchone()
    assert row is not None
    types: list[str] = row[0]
    return types


def execute(values: list[str | None]) -> str:
    """Spell the execution of what is prepared."""
    spelled = ", ".join("null" if value is None else f"'{value}'" for value in values)
    return f"execute it({spelled})" if values else "execute it"


def sampled(name: str, types: list[str]) -> list[str | None]:
    """Give each parameter of a statement a value."""
    return [VALUES.get(key, SAMPLES[of]) for key, of in zip(sql.parameters(SQL[name]), types, strict=True)]


def use_indexes(connection: psycopg.Connection[Any], settings: Mapping[str, str] = INDEXED) -> None:
    """Behave as the store's sessions do, until the transaction ends."""
    for setting, value in settings.items():
        connection.execute(f"set local {setting} = '{value}'".encode())


def plan(connection: psycopg.Connection[Any], name: str, values: Values | None, mode: str) -> list[Node]:
    """Explain a statement with the settings of the session that executes it; without values, with samples."""
    with connection.transaction(force_rollback=True):
        if name not in PLAIN:
            use_indexes(connection)
        connection.execute(f"set local plan_cache_mode = force_{mode}_plan".encode())
        types = prepared(connection, name)
        given = sampled(name, types) if values is None else [values.get(key) for key in sql.parameters(SQL[name])]
        row = connection.execute(f"explain (format json) {execute(given)}".encode()).fetchone()
    assert row is not None
    return list(nodes(row[0][0]["Plan"]))


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for each in node.get("Plans", ()):
        yield from nodes(each)


def reads_all(node: Node) -> bool:
    """Whether a scan reads a large table, or an index of all of it, from one end until somebody has enough."""
    if "Index Name" in node:
        table = node["Index Name"].partition("_")[0]
        return table in LARGE and node["Index Name"] not in ALIVE and "Index Cond" not in node
    return node.get("Relation Name") in LARGE and node["Node Type"] in {"Seq Scan", "Sample Scan"}


def told(found: Iterable[Node]) -> list[str]:
    """Spell what a plan reads."""
    return [" ".join(it[key] for key in ("Node Type", "Relation Name", "Index Name") if key in it) for it in found]


APART: Final = {"find", "count"}
"""What is asked with filters, below."""
EXPLAINED: Final = sorted(
    name
    for name, text in SQL.items()
    if name not in APART and text.lstrip().lower().startswith(("select", "with", "insert", "update", "delete"))
)
ALWAYS: Final = {
    "queues": "no index has all that is queued: what is in line is in one, what is delayed in another",
}
"""What does nevertheless, and why; who mends one takes it out."""


@pytest.mark.parametrize("mode", ["generic", "custom"])
def test_no_statement_reads_all_workflows(large: psycopg.Connection[Any], mode: str) -> None:
    """Neither planned once for all values, nor for those that it is given."""
    plans = {name: plan(large, name, None, mode) for name in EXPLAINED}
    reading = {name: told(found) for name, found in plans.items() if any(map(reads_all, found))}
    assert reading.keys() == ALWAYS.keys(), reading


PAGES: Final = 1500
"""What an admission of a few may look at, the catalog included; the table has a quarter of a million."""


def test_an_admission_reads_few_pages(large: psycopg.Connection[Any]) -> None:
    """What a function of ours executes is in no plan, but in what the statement has read: all of it."""
    with large.transaction(force_rollback=True):
        use_indexes(large)
        values = sampled("admit", prepared(large, "admit"))
        row = large.execute(f"explain (analyze, buffers, format json) {execute(values)}".encode()).fetchone()
    assert row is not None
    top: Node = row[0][0]["Plan"]
    assert top["Actual Rows"] >= 1
    assert top["Shared Hit Blocks"] + top["Shared Read Blocks"] <= PAGES


CHILDREN: Final[Values] = {"parent": "w19"}
RUNNING: Final[Values] = {"status": "{1}"}
DAY: Final[Values] = {"since": "1.7e9", "until": "1.7001e9"}


@pytest.mark.parametrize(
    ("statement", "given"),
    [("find", CHILDREN), ("find", DAY), ("count", CHILDREN), ("count", DAY), ("count", RUNNING)],
)
def test_what_has_an_index_is_found_by_it(large: psycopg.Connection[Any], statement: str, given: Values) -> None:
    """The children of a workflow, what runs, and what was made in some time."""
    found = plan(large, statement, {"limit": "100", **given}, "custom")
    assert not any(map(reads_all, found)), told(found)


def test_the_next_page_begins_where_the_last_one_ended(large: psycopg.Connection[Any]) -> None:
    found = plan(large, "find", {"limit": "100", "after_at": "1.7e9", "after_id": "w17"}, "custom")
    assert not any(map(reads_all, found))


NEWEST: Final[list[Values]] = [
    {"name": "name1"},
    {"queue": "queue1"},
    {"user": "user7"},
    {"status": "{4}"},
    {"labels": '{"label": 1}'},
]


def test_a_page_of_the_newest_is_read_until_it_is_full(large: psycopg.Connection[Any]) -> None:
    """What has no index of its own is met in the order of time, so it takes the longer the rarer it is."""
    for given in NEWEST:
        found = plan(large, "find", {"limit": "100", **given}, "custom")
        assert told(it for it in found if "Index Name" in it) == ["Index Scan workflows workflows_created"]
        assert not [it for it in found if it["Node Type"] == "Sort"]


LANE: Final = ("start", "write", "finish", "write_and_finish", "records", "batch")


def test_what_a_lane_executes_is_planned_once(large: psycopg.Connection[Any]) -> None:
    """It has to say so: Postgres takes arrays for ten rows long, and would plan anew for each batch that is shorter."""
    assert not {name for name in LANE if str(SAMPLES["text"]) in sixth_plan(large, name)}


def sixth_plan(connection: psycopg.Connection[Any], name: str) -> str:
    """Explain a statement as it is executed for the sixth time; its values stand in a plan that is for them alone."""
    pairs = zip(sql.parameters(SQL[name]), sampled(name, prepared(connection, name)), strict=True)
    values = [None if key == "dedupe" else value for key, value in pairs]
    explain = f"explain (verbose, costs off) {execute(values)}".encode()
    with connection.transaction(force_rollback=True):
        use_indexes(connection, SETTINGS)
        *_, last = [connection.execute(explain).fetchall() for _ in range(6)]
    return "\n".join(line for (line,) in last)
