-- Retention: what is past its time shrinks to its key, and the key is deleted later. One page each time.

-- aged: records that are past their time, oldest first
select id, ended_at from operon_workflows
where name = :name and status = :status and erased = 0 and ended_at <= :until
  and (:after_at is null or (ended_at, id) > (:after_at, :after_id))
order by ended_at, id
limit :limit;

-- aged_keys: likewise, keys
select id, ended_at from operon_workflows
where name = :name and status = :status and erased = 2 and ended_at <= :until
  and (:after_at is null or (ended_at, id) > (:after_at, :after_id))
order by ended_at, id
limit :limit;

-- A parent that has its record may still be taken up again, and reads the results of its children then.
-- erasable: those whose record nobody needs
select id from operon_workflows w
where id in (select value from json_each(:ids))
  and not exists (select 1 from operon_workflows where id = w.parent and erased = 0)
  and not exists (select 1 from operon_awaits where awaited = w.id)
  and (cleanup_until is null or cleanup_until <= :now or cleanups >= 3);

-- The id of a parent that were free would soon be that of another, whose children would take these for their own.
-- forgettable: those that nothing descends from
select id from operon_workflows w
where id in (select value from json_each(:ids)) and not exists (select 1 from operon_workflows where parent = w.id);

-- erase: leave what says whose id it is, and how it ended
update operon_workflows
set
  erased = 1, input = '', output = null, error = null, user = null, roles = null, request_id = null,
  traceparent = null, attributes = null
where id in (select value from json_each(:ids));

-- strip: remove journal entries of what is erased
delete from operon_steps
where (workflow_id, position) in (
  select s.workflow_id, s.position
  from (select id from operon_workflows where erased = 1 limit :limit) w join operon_steps s on s.workflow_id = w.id
  limit :limit
);

-- stripped: note whose journal is gone
update operon_workflows set erased = 2
where id in (
  select id from operon_workflows w
  where erased = 1 and not exists (select 1 from operon_steps where workflow_id = w.id)
  limit :limit
);

-- tree: a workflow, its parent, and all that descends from it
with recursive tree (id) as (
  select id from operon_workflows where id = :id
  union
  select child.id from operon_workflows child join tree on child.parent = tree.id
)
select w.id, w.status, w.id in (select id from tree) as below
from operon_workflows w
where w.id in (select id from tree) or w.id = (select parent from operon_workflows where id = :id)
order by w.id <> :id, w.id;

-- delete_steps: remove journals
delete from operon_steps where workflow_id in (select value from json_each(:ids));

-- delete_awaits: remove what they waited for
delete from operon_awaits where workflow_id in (select value from json_each(:ids));

-- delete: remove workflows; their ids are free
delete from operon_workflows where id in (select value from json_each(:ids));

-- prune_executors: forget those that died long ago and hold nothing
delete from operon_executors
where id in (
  select id from operon_executors e
  where not alive and lease_until < :until
    and not exists (select 1 from operon_workflows w where w.executor = e.id and w.status = 1)
  limit :limit
);

-- prune_admissions: forget those that no window reaches
delete from operon_admissions
where rowid in (
  select a.rowid
  from operon_queues q
  join operon_admissions a
    on a.queue = q.name and a.at <= :now - max(ifnull(q.period, 0), ifnull(q.partition_period, 0))
  limit :limit
);
