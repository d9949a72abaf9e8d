-- Retention: what is past its time shrinks to its key, and the key is deleted later. One page each time, in a commit of
-- its own; rows that another has locked are left for the next time, so sweepers never wait for each other.

-- The policies come in an order, and the page is filled from the first on: so a sweep goes on where the last one
-- stopped, and looks at no more than :limit rows, also where most of them may not go yet. A parent that has its record
-- may be taken up again, and reads the results of its children then. These questions are scalars and not `exists`, which
-- the planner may make a join of, and read all workflows for a page.
-- erase: shrink a page of records to what says whose id it is, and how it ended
with page as materialized (
    select p.place, w.id, w.ended_at
    from unnest(
        :names::text[], :statuses::int[], :keeps::float8[], :after_ats::float8[], :after_ids::text[]
    ) with ordinality as p (name, status, keep, after_at, after_id, place)
    cross join lateral (
        select id, ended_at from operon.workflows
        where name = p.name and status = p.status and status > 3 and erased = 0
            and ended_at <= statement_timestamp() - make_interval(secs => p.keep)
            and (ended_at, id) > (to_timestamp(p.after_at), p.after_id)
        order by ended_at, id
        limit :limit::int
    ) as w
    order by p.place, w.ended_at, w.id
    limit :limit::int
), free as materialized (
    select id from operon.workflows w
    where id in (select id from page) and status > 3 and erased = 0
        and (select p.erased from operon.workflows p where p.id = w.parent and p.erased = 0) is null
        and (select 1 from operon.awaits a where a.awaited = w.id limit 1) is null
        and (cleanup_until is null or cleanup_until <= statement_timestamp() or cleanups >= 3)
    order by id
    for no key update skip locked
), gone as (
    update operon.workflows w set
        erased = 1, input = '', output = null, error = null, "user" = null, roles = null, request_id = null,
        traceparent = null, attributes = null
    from free where w.id = free.id
    returning 1
)
select
    (select count(*) from gone) as gone, (select count(*) from page) as looked, last.place::int - 1 as policy,
    extract(epoch from last.ended_at)::float8 as ended_at, last.id
from (values (1)) as one left join (
    select * from page order by place desc, ended_at desc, id desc limit 1
) as last on true;

-- The id of a parent that were free would soon be that of another, whose children would take these for their own.
-- forget: delete a page of keys that nothing descends from; their ids are free
with page as materialized (
    select p.place, w.id, w.ended_at
    from unnest(
        :names::text[], :statuses::int[], :keeps::float8[], :after_ats::float8[], :after_ids::text[]
    ) with ordinality as p (name, status, keep, after_at, after_id, place)
    cross join lateral (
        select id, ended_at from operon.workflows
        where name = p.name and status = p.status and erased = 2
            and ended_at <= statement_timestamp() - make_interval(secs => p.keep)
            and (ended_at, id) > (to_timestamp(p.after_at), p.after_id)
        order by ended_at, id
        limit :limit::int
    ) as w
    order by p.place, w.ended_at, w.id
    limit :limit::int
), free as materialized (
    select id from operon.workflows w
    where id in (select id from page) and erased = 2
        and (select 1 from operon.workflows c where c.parent = w.id limit 1) is null
    order by id
    for update skip locked
), gone as (
    delete from operon.workflows w using free where w.id = free.id returning 1
)
select
    (select count(*) from gone) as gone, (select count(*) from page) as looked, last.place::int - 1 as policy,
    extract(epoch from last.ended_at)::float8 as ended_at, last.id
from (values (1)) as one left join (
    select * from page order by place desc, ended_at desc, id desc limit 1
) as last on true;

-- strip: remove journal entries of what is erased
delete from operon.steps
where ctid = any(array(
    select s.ctid
    from (select id from operon.workflows where erased = 1 limit :limit::int) as w
    join operon.steps s on s.workflow_id = w.id
    limit :limit::int
    for update of s skip locked
))
returning 1;

-- stripped: note whose journal is gone
update operon.workflows set erased = 2
where id = any(array(
    select id from operon.workflows w
    where erased = 1 and not exists (select from operon.steps s where s.workflow_id = w.id)
    limit :limit::int
    for no key update skip locked
));

-- tree: a workflow, its parent, and all that descends from it
with recursive tree as (
    select id from operon.workflows where id = :id::text
    union
    select w.id from operon.workflows w join tree on w.parent = tree.id
)
select w.id, w.status, w.id in (select id from tree) as below
from operon.workflows w
where w.id = any(array(select id from tree union all select parent from operon.workflows where id = :id::text))
order by w.id <> :id::text, w.id;

-- keep_still: let nobody change some workflows, nor start a child of one, until the transaction ends
select 1 from operon.workflows where id = any(:ids::text[]) order by id for update;

-- delete: remove workflows, their journals, and what they waited for; their ids are free
with journals as (
    delete from operon.steps where workflow_id = any(:ids::text[])
), waits as (
    delete from operon.awaits where workflow_id = any(:ids::text[])
)
delete from operon.workflows where id = any(:ids::text[]) returning 1;

-- prune_executors: forget those that died long ago and hold nothing
delete from operon.executors
where id = any(array(
    select id from operon.executors e
    where not alive and lease_until < statement_timestamp() - make_interval(secs => :older::float8)
        and not exists (select from operon.workflows w where w.executor = e.id and w.status = 1)
    order by id
    limit :limit::int
    for update skip locked
))
returning 1;

-- prune_admissions: forget those that no window reaches
delete from operon.admissions
where ctid = any(array(
    select a.ctid
    from operon.queues q
    join operon.admissions a
        on a.queue = q.name
        and a.at <= statement_timestamp()
            - make_interval(secs => greatest(coalesce(q.period, 0), coalesce(q.partition_period, 0)))
    limit :limit::int
    for update of a skip locked
))
returning 1;
