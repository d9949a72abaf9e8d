-- Queues and who is in line. All of a claim happens in one transaction of the file's only writer, so what one statement
-- counts is still so when the next one takes.

-- queue: one queue as it stands
select * from operon_queues where name = :name;

-- rival: whether an app runs somewhere
select 1 from operon_executors where app = :app and alive and lease_until > :now limit 1;

-- declare: enter a queue that is new, as its code declares it
insert into operon_queues (
  name, app, concurrency, worker_concurrency, rate, period, partition_concurrency, partition_rate,
  partition_period, seed_concurrency, seed_worker_concurrency, seed_rate, seed_period, seed_partition_concurrency,
  seed_partition_rate, seed_partition_period
)
values (
  :name, :app, :concurrency, :worker_concurrency, :rate, :period, :partition_concurrency, :partition_rate,
  :partition_period, :concurrency, :worker_concurrency, :rate, :period, :partition_concurrency, :partition_rate,
  :partition_period
)
on conflict do nothing;

-- reseed: note what the code declares
update operon_queues
set
  app = :app, seed_concurrency = :concurrency, seed_worker_concurrency = :worker_concurrency, seed_rate = :rate,
  seed_period = :period, seed_partition_concurrency = :partition_concurrency,
  seed_partition_rate = :partition_rate, seed_partition_period = :partition_period
where name = :name;

-- limit: change limits
update operon_queues
set
  concurrency = :concurrency, worker_concurrency = :worker_concurrency, rate = :rate, period = :period,
  partition_concurrency = :partition_concurrency, partition_rate = :partition_rate,
  partition_period = :partition_period
where name = :name;

-- hold_line: pause a queue, or resume it
update operon_queues set paused = :paused where name = :name;

-- queues: all, by name, and how many wait and run there
select
  q.*,
  (select count(*) from operon_workflows where queue = q.name and status = 0) as queued,
  (select count(*) from operon_workflows where queue = q.name and status = 1) as running
from operon_queues q
order by name;

-- promote: put in line what is due
update operon_workflows set status = 0, ready_at = null
where id in (
  select id from operon_workflows
  where queue = :queue and status in (0, 2) and ready_at is not null and ready_at <= :now
  order by ready_at
  limit 1000
);

-- prune: forget admissions that no window reaches
delete from operon_admissions where queue = :queue and at <= :now - max(:period, :partition_period);

-- taken: how many of a queue run, run here, and were admitted within its window
select
  (select count(*) from operon_workflows where queue = :queue and status = 1),
  (select count(*) from operon_workflows where queue = :queue and status = 1 and executor = :executor),
  (select count(*) from operon_admissions where queue = :queue and at > :now - :period);

-- partition_after: the next partition that has somebody in line
select min(partition) from operon_workflows
where queue = :queue and partition > :partition and status = 0 and ready_at is null;

-- partition_from: the first partition that has somebody in line
select min(partition) from operon_workflows where queue = :queue and status = 0 and ready_at is null;

-- taken_of_partition: how many of a partition run, and were admitted within its window
select
  (select count(*) from operon_workflows where queue = :queue and partition = :partition and status = 1),
  (select count(*) from operon_admissions where queue = :queue and partition = :partition and at > :now - :period);

-- line: who is next in a partition
select id from operon_workflows
where queue = :queue and partition = :partition and status = 0 and ready_at is null
  and name in (select value from json_each(:names))
  and (instance is null or instance in (select value from json_each(:instances)))
  and (pin is null or pin = :version)
order by rank, id
limit :limit;

-- admit: note who was admitted, for the rates
insert into operon_admissions (queue, partition, at)
select :queue, partition, :now from operon_workflows where id in (select value from json_each(:ids));

-- serve: note which partition was served last
update operon_queues set served = :served where name = :queue;

-- waited_for: partitions that have somebody in line and admissions in the window
select distinct partition from operon_admissions a
where queue = :queue and exists (
  select 1 from operon_workflows
  where queue = :queue and partition = a.partition and status = 0 and ready_at is null
);

-- admitted_before: the admission that fills a window of so many; with no :partition, of the whole queue
select at from operon_admissions
where queue = :queue and (:partition is null or partition = :partition)
order by at desc
limit 1 offset :rate - 1;

-- holder: who has a dedupe and is to make room; nobody, if the id that is to be started is there: then nothing starts
select id from operon_workflows
where dedupe = :dedupe and status < 4
  and not exists (select 1 from operon_workflows where id = :id);
