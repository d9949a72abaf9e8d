-- Batches: items that wait for company, and how they come together.

-- Looks at the first of those that wait, for it runs with every claim; whoever it does not see begins when his wait is
-- over. Those that have begun, and are in no batch yet, bring company of their own: in line, or running.
-- ripen: let items begin of which there are enough, one for each batch
update operon_workflows set ready_at = :now
where id in (
  with near as materialized (
    select id, partition, rank, ready_at <= :now as ready from operon_workflows
    where queue = :queue and name = :name and status in (0, 2) and status = 0 and ready_at <= :now + :wait
    order by ready_at
    limit max(1000, 4 * :size)
  ), line as materialized (
    select
      partition, sum(not ready) as waiting,
      sum(ready) + (
        select count(*) from (
          select 1 from operon_workflows w
          where w.queue = :queue and w.partition = n.partition and w.name = :name and status = 0 and ready_at is null
          limit 1000
        )
      ) as ready, (
        select count(*) from operon_workflows w
        where w.queue = :queue and w.partition = n.partition and w.name = :name and status = 1
          and not exists (select 1 from operon_steps where workflow_id = w.id)
      ) as leaders
    from near n
    group by partition
    having sum(not ready) > 0
  )
  select id from line join (
    select id, partition, row_number() over (partition by partition order by rank, id) as place
    from near
    where not ready
  ) using (partition)
  where place <= (ready + waiting - leaders * (:size - 1)) / :size - ready
);

-- leader: an item, if its claim holds
select id, claim, input from operon_workflows where id = :id and claim = :claim and status = 1;

-- What has a journal has been in a batch, and ends as that says.
-- followers: those in line that may join it
select id, claim, input from operon_workflows
where queue = :queue and partition = :partition and name = :name and status = 0 and ready_at is null
  and instance is :instance and pin is :pin
  and not exists (select 1 from operon_steps where workflow_id = operon_workflows.id)
order by rank, id
limit :limit;

-- companions: those that wait for company, likewise
select id, claim, input from operon_workflows
where queue = :queue and partition = :partition and name = :name and status in (0, 2) and status = 0
  and ready_at <= :now + :wait
  and instance is :instance and pin is :pin
  and not exists (select 1 from operon_steps where workflow_id = operon_workflows.id)
order by ready_at, rank, id
limit :limit;

-- join_batch: let an item wait for its batch
update operon_workflows set status = 2, claim = :claim, executor = null, ready_at = deadline where id = :id;

-- await_batch: note what it waits for
insert or replace into operon_awaits (workflow_id, awaited) values (:id, :batch);

-- note_batch: note in its journal which batch, and its place there
insert into operon_steps (
  workflow_id, position, ordinal, kind, name, digest, output, child, attempt, version, started_at, ended_at, claim
)
values (:id, '1', 1, 'start', :name, '', :place, :batch, 1, :version, :now, :now, :claim);

-- settle_item: end an item with its batch, if it still waits under the claim it had
update operon_workflows
set status = :status, output = :output, error = :error, ready_at = null, ended_at = :now
where id = :id and claim = :claim and status = 2;
