-- What the kernel remembers. Status: 0 queued, 1 running, 2 waiting, 3 held, 4 succeeded, 5 failed, 6 cancelled.
-- Instants are seconds since 1970; durations are seconds; values, roles and attributes are JSON text.

create table operon_migrations (
  number integer primary key,
  name text not null,
  checksum text not null,
  applied_at real not null
) strict;

-- One row: which file this is, how often it was adopted after a copy, and the last transaction of a user.
create table operon_identity (
  one integer primary key check (one = 1),
  file text not null,
  era integer not null default 1,
  transactions integer not null default 0
) strict;

-- Autoincrement: an executor's id is never given to another.
create table operon_executors (
  id integer primary key autoincrement,
  beat integer not null default 0,
  app text not null,
  host text not null,
  pid integer not null,
  born text not null,
  alive integer not null default 1,
  lease_until real not null,
  version text not null
) strict;

create table operon_workflows (
  id text not null primary key,
  name text not null,
  status integer not null,
  claim integer not null default 0,
  executor integer,
  ready_at real,
  created_at real not null,
  started_at real,
  ended_at real,
  deadline real,
  takeovers integer not null default 0,
  attempts integer not null default 0,
  instance text,
  pin text,
  parent text,
  root text,
  user text,
  roles text,
  request_id text,
  traceparent text,
  version text not null default '',
  attributes text,
  nonce integer not null,
  digest text not null,
  input text not null,
  output text,
  error text
) strict;

create index operon_workflows_ready on operon_workflows (ready_at, id) where status in (0, 2);
create index operon_workflows_running on operon_workflows (executor) where status = 1;
create index operon_workflows_parent on operon_workflows (parent) where parent is not null;
create index operon_workflows_created on operon_workflows (created_at, id);

create table operon_steps (
  workflow_id text not null,
  position text not null,
  ordinal integer not null,
  kind text not null,
  name text not null,
  digest text not null,
  output text,
  error text,
  child text,
  attempt integer not null,
  version text not null,
  isolation text,
  started_at real not null,
  ended_at real not null,
  claim integer not null,
  xid integer, -- the number of the user's transaction that wrote it
  primary key (workflow_id, position)
) strict, without rowid;

create table operon_awaits (
  workflow_id text not null,
  awaited text not null,
  primary key (workflow_id, awaited)
) strict, without rowid;

create index operon_awaits_awaited on operon_awaits (awaited);

-- Only what is parked awaits anything, however it leaves.
create trigger operon_workflows_leave after update of status on operon_workflows
when old.status = 2 and new.status <> 2
begin
  delete from operon_awaits where workflow_id = old.id;
end;

-- Writers come one at a time, so the record itself numbers the transaction it ends.
create trigger operon_steps_number after insert on operon_steps
when new.xid is not null
begin
  update operon_identity set transactions = new.xid;
end;
