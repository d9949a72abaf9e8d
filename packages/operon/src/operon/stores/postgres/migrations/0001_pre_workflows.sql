-- The kernel's tables: a workflow is a row, its history the rows of its steps, an executor a row with a lease.
-- Identifiers compare byte by byte (collate "C"), so that every client sorts its locks alike.
-- Values are text, never jsonb, which refuses \u0000. A status is the number that operon.core.states gives it:
-- 0 queued, 1 running, 2 waiting, 3 held, 4 succeeded, 5 failed, 6 cancelled.

do $$
begin
    -- `create schema if not exists` asks for the right to create one even where it exists already.
    if to_regnamespace('operon') is null then
        create schema operon;
    end if;
end
$$;

create table operon.migrations (
    number integer primary key,
    name text not null,
    checksum text not null,
    applied_at timestamptz not null default clock_timestamp()
);

create table operon.identity (
    one boolean primary key default true check (one),
    system text,
    database bigint not null,
    era integer not null default 1
);

create table operon.workflows (
    id text collate "C" primary key,
    claim bigint not null default 0,
    executor bigint,
    ready_at timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    ended_at timestamptz,
    deadline timestamptz,
    nonce bigint not null,
    status smallint not null,
    takeovers smallint not null default 0,
    attempts integer not null default 0,
    name text not null,
    digest text not null,
    version text not null,
    pin text,
    instance text,
    parent text collate "C",
    root text collate "C",
    "user" text,
    roles text,
    request_id text,
    traceparent text,
    attributes text,
    input text not null,
    output text,
    error text
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

create index workflows_ready on operon.workflows (ready_at) where status in (0, 2);
create index workflows_running on operon.workflows (executor) where status = 1;
create index workflows_parent on operon.workflows (parent) where parent is not null;
create index workflows_created on operon.workflows (created_at);

create table operon.steps (
    workflow_id text collate "C" not null,
    position text collate "C" not null,
    ordinal integer not null,
    attempt integer not null,
    claim bigint not null,
    started_at timestamptz not null,
    ended_at timestamptz not null,
    kind text not null,
    name text not null,
    digest text not null,
    version text not null,
    child text collate "C",
    isolation text,
    xid xid8,
    snapshot pg_snapshot,
    output text,
    error text,
    primary key (workflow_id, position)
);

create table operon.awaits (
    workflow_id text collate "C" not null,
    awaited text collate "C" not null,
    primary key (workflow_id, awaited)
);

create index awaits_awaited on operon.awaits (awaited);

create table operon.executors (
    id bigint generated always as identity primary key,
    beat bigint not null default 0,
    lease_until timestamptz not null,
    enlisted_at timestamptz not null default clock_timestamp(),
    pid integer not null,
    alive boolean not null default true,
    app text not null,
    host text not null,
    born text not null,
    version text not null
) with (fillfactor = 50);

create function operon.has_labels(attributes text, labels text) returns boolean
language sql immutable
return attributes is not null and not exists (
    -- jsonb refuses \u0000; on both sides, a character of private use stands for it.
    select from jsonb_each(replace(labels, '\u0000', '\ue000')::jsonb) as wanted
    where replace(attributes, '\u0000', '\ue000')::jsonb -> wanted.key is distinct from wanted.value
);
