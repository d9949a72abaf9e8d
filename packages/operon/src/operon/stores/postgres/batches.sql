-- Batches: items that wait for company, and how they come together.

-- Looks at the first of those that wait, for it runs with every claim; whoever it does not see begins when his wait is
-- over. Those that have begun, and are in no batch yet, bring company of their own: in line, or running.
-- ripen: let items begin of which there are enough, one for each batch
with near as materialized (
    select b.name, b.size, q.queue, w.*
    from unnest(:names::text[], :sizes::int[], :waits::float8[]) as b (name, size, wait)
    cross join unnest(:queues::text[]) as q (queue)
    cross join lateral (
        select id, partition, rank, ready_at <= statement_timestamp() as ready from operon.workflows
        where queue = q.queue and name = b.name and status = 0
            and ready_at <= statement_timestamp() + make_interval(secs => b.wait)
        order by ready_at
        limit greatest(1000, 4 * b.size)
    ) as w
), line as materialized (
    select
        name, queue, partition, size, count(*) filter (where not ready) as waiting,
        count(*) filter (where ready) + (
            select count(*) from (
                select from operon.workflows w
                where w.queue = n.queue and w.partition = n.partition and w.name = n.name and status = 0
                    and ready_at is null
                limit 1000
            ) as those
        ) as ready, (
            select count(*) from operon.workflows w
            where w.queue = n.queue and w.partition = n.partition and w.name = n.name and status = 1
                and (select 1 from operon.steps s where s.workflow_id = w.id limit 1) is null
        ) as leaders
    from near n
    group by name, queue, partition, size
    having not bool_and(ready)
), first as materialized (
    select w.id from operon.workflows w
    where w.id in (
        select id from line natural join (
            select
                name, queue, partition, id,
                row_number() over (partition by name, queue, partition order by rank, id) as place
            from near
            where not ready
        ) as waits
        where place <= (ready + waiting - leaders * (size - 1)) / size - ready
    ) and w.status = 0
    order by w.id
    for no key update skip locked
)
update operon.workflows w set ready_at = statement_timestamp() from first where w.id = first.id returning 1;

-- leader: an item, if its claim holds; nobody changes it until the transaction ends
select id, claim, input from operon.workflows
where id = :id::text and claim = :claim::bigint and status = 1
for no key update;

-- What has a journal has been in a batch, and ends as that says.
-- followers: those in line that may join it; nobody waits for whom another has locked
select id, claim, input from operon.workflows
where queue = :queue::text and partition = :partition::text and name = :name::text and status = 0 and ready_at is null
    and instance is not distinct from :instance::text and pin is not distinct from :pin::text
    and (select 1 from operon.steps s where s.workflow_id = id limit 1) is null
order by rank, id
limit :limit::int
for no key update skip locked;

-- companions: those that wait for company, likewise
select id, claim, input from operon.workflows
where queue = :queue::text and partition = :partition::text and name = :name::text and status = 0
    and ready_at <= statement_timestamp() + make_interval(secs => :wait::float8)
    and instance is not distinct from :instance::text and pin is not distinct from :pin::text
    and (select 1 from operon.steps s where s.workflow_id = id limit 1) is null
order by ready_at, rank, id
limit :limit::int
for no key update skip locked;

-- join_batch: let items wait for their batch, and note in their journals which, and their place there
with item as (
    select * from unnest(:ids::text[], :claims::bigint[]) with ordinality as i (id, claim, place)
), parked as (
    update operon.workflows w set status = 2, claim = item.claim, executor = null, ready_at = deadline
    from item where w.id = item.id
), awaiting as (
    insert into operon.awaits (workflow_id, awaited) select id, :batch::text from item on conflict do nothing
)
insert into operon.steps (
    workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child, output
)
select
    id, '1', 1, 1, claim, clock_timestamp(), clock_timestamp(), 'start', :name::text, '', :version::text, :batch::text,
    (place - 1)::text
from item;

-- An item that somebody else has locked stays parked: woken by the end of its batch, it ends as its journal says.
-- settle_items: end items with their batch, if they still wait under the claim they had
with share as (
    select * from unnest(
        :ids::text[], :claims::bigint[], :statuses::int[], :outputs::text[], :errors::text[]
    ) as s (id, claim, status, output, error)
), waiting as materialized (
    select w.id from operon.workflows w join share s on s.id = w.id and s.claim = w.claim
    where w.status = 2
    order by w.id
    for no key update of w skip locked
)
update operon.workflows w set
    status = s.status, output = s.output, error = s.error, ready_at = null, ended_at = clock_timestamp()
from share s join waiting on waiting.id = s.id
where w.id = s.id;
