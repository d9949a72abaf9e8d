-- Queues: their limits, where each workflow stands in which line, and who was admitted when.
-- In line is what is queued, has a queue, and no ready_at; rank is its creation less a minute a level of priority.

alter table operon_workflows add column queue text;
alter table operon_workflows add column partition text not null default '';
alter table operon_workflows add column priority integer not null default 0;
alter table operon_workflows add column rank real;
alter table operon_workflows add column dedupe text;

create index operon_workflows_line on operon_workflows (queue, partition, rank, id)
  where status = 0 and queue is not null and ready_at is null;
create index operon_workflows_due on operon_workflows (queue, ready_at)
  where status in (0, 2) and queue is not null and ready_at is not null;
create index operon_workflows_admitted on operon_workflows (queue, partition, executor)
  where status = 1 and queue is not null;
create unique index operon_workflows_dedupe on operon_workflows (dedupe) where dedupe is not null and status < 4;

-- The seed is what the code declared last; limits that differ from it were changed by somebody, and stay.
create table operon_queues (
  name text not null primary key,
  app text not null,
  paused integer not null default 0,
  served text not null default '', -- the partition that was served last
  concurrency integer,
  worker_concurrency integer,
  rate integer,
  period real,
  partition_concurrency integer,
  partition_rate integer,
  partition_period real,
  seed_concurrency integer,
  seed_worker_concurrency integer,
  seed_rate integer,
  seed_period real,
  seed_partition_concurrency integer,
  seed_partition_rate integer,
  seed_partition_period real
) strict;

create table operon_admissions (
  queue text not null,
  partition text not null,
  at real not null
) strict;

create index operon_admissions_at on operon_admissions (queue, at);
create index operon_admissions_partition on operon_admissions (queue, partition, at);
