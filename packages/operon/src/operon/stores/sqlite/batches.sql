-- Batches: items that wait for company, and how they come together.

-- Looks at the first of those that wait, for it runs with every claim; whoever it does not see begins when his wait is
-- over.
-- ripen: let items begin of which there are enough, one for each batch
update operon_workflows set ready_at = :now
where id in (
  select id from (
    select
      id, row_number() over (partition by partition order by rank, id) as place,
      count(*) over (partition by partition) as many
    from (
      select id, partition, rank from operon_workflows
      where queue = :queue and name = :name and status in (0, 2) and status = 0
        and ready_at > :now and ready_at <= :now + :wait
      order by ready_at
      limit max(1000, 4 * :size)
    )
  )
  where place <= many / :size
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
