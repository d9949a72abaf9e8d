-- start: insert a workflow, unless the id is taken or the parent has lost its claim
insert into operon_workflows (
  id, name, status, claim, executor, ready_at, created_at, started_at, deadline, attempts, instance, pin,
  parent, root, user, roles, request_id, traceparent, version, attributes, nonce, digest, input, queue, partition,
  priority, rank, dedupe
)
select
  :id, :name, iif(:executor is null, 0, 1), (:nonce >> 20 << 20) + (:executor is not null), :executor,
  iif(:executor is null and (:queue is null or :delay > 0), :now + :delay, null),
  :now, iif(:executor is null, null, :now), min(ifnull(:deadline, :now + :timeout), ifnull(:now + :timeout, :deadline)),
  :executor is not null, :instance, :pin,
  :parent, :root, :user, :roles, :request_id, :traceparent, :version, :attributes, :nonce, :digest, :input,
  :queue, :partition, :priority, :now - 60 * :priority, :dedupe
where :parent is null or exists (select 1 from operon_workflows where id = :parent and claim = :parent_claim and status = 1)
on conflict do nothing;

-- started: what has the id, or else the dedupe
select id, nonce, name, digest, status, output, error, iif(erased, ended_at, null) from operon_workflows
where id = :id or (dedupe = :dedupe and status < 4)
order by id <> :id
limit 1;

-- holds: whether a claim still may write, for as long as this transaction lasts
select 1 from operon_workflows where id = :id and claim = :claim and status = 1;

-- finish: end a run, or give it away
update operon_workflows
set status = :status, output = :output, error = :error, ready_at = :ready_at, ended_at = :ended_at,
  executor = iif(:status > 2, executor, null), cleanup_until = iif(:cleaner is null, null, :now + 3600), cleaner = :cleaner
where id = :id;

-- park: go to sleep, unless what is awaited is over or gone; no other writer can end it meanwhile
update operon_workflows set status = 2, executor = null, ready_at = :ready_at, takeovers = 0
where id = :id and not exists (
  select 1 from json_each(:awaits) awaited
  where not exists (select 1 from operon_workflows where id = awaited.value and status < 3)
);

-- await: note what a parked workflow waits for
insert or ignore into operon_awaits (workflow_id, awaited) select :id, value from json_each(:awaits);

-- hush: note whose success does not wake it
insert or ignore into operon_quiet (workflow_id, awaited) select :id, value from json_each(:quiet);

-- ready: whom a claimer may take, oldest ready first
select id from operon_workflows
where status in (0, 2)
  and queue is null
  and ready_at <= :now
  and name in (select value from json_each(:names))
  and (instance is null or instance in (select value from json_each(:instances)))
  and (pin is null or pin = :version)
order by ready_at, id
limit :limit;

-- soonest: when the next one is ready
select iif(
  exists (select 1 from operon_workflows where status = 0 and queue is not null and ready_at is null),
  0,
  (select min(ready_at) from operon_workflows where status in (0, 2))
) as ready_at;

-- claim: take them, under a new number that fences whoever had them
update operon_workflows
set
  status = 1, claim = claim + 1, executor = :executor, attempts = attempts + 1, ready_at = null,
  started_at = ifnull(started_at, :now)
where id in (select value from json_each(:ids))
returning *;

-- weights: how many bytes the journals of some have, or nearly so
select workflow_id, sum(ifnull(length(output), 0) + ifnull(length(error), 0)) from operon_steps
where workflow_id in (select value from json_each(:ids)) group by workflow_id;

-- wake: make ready the sleepers that await one of these
update operon_workflows set ready_at = :now
where status = 2
  and (ready_at is null or ready_at > :now)
  and id in (
    select workflow_id from operon_awaits a
    where awaited in (select value from json_each(:targets))
      and (
        (workflow_id, awaited) not in (select workflow_id, awaited from operon_quiet)
        or not exists (select 1 from operon_workflows t where t.id = a.awaited and t.status = 4)
      )
  );

-- noted: who ended while somebody awaited it, and nobody has been woken for it yet
select awaited from operon_wakes;

-- forget_wakes: they have
delete from operon_wakes where awaited in (select value from json_each(:targets));

-- cancel: a workflow and, if wanted, what descends from it, even below one that has ended
update operon_workflows
set
  status = 6, claim = claim + 1, ready_at = null, ended_at = :now, output = null, error = null,
  cleanup_until = iif(status < 3 and attempts > 0, :now + 3600, null), cleaner = iif(status = 1, executor, null)
where status < 4 and id in (
  with recursive tree (id) as (
    select :id
    union
    select child.id from operon_workflows child join tree on child.parent = tree.id where :children
  )
  select id from tree
);

-- revoked: the claims under which what is cancelled of a tree may still be run
with recursive tree (id) as (
  select :id
  union
  select child.id from operon_workflows child join tree on child.parent = tree.id where :children
)
select id, claim - 1 from operon_workflows where status = 6 and id in (select id from tree) order by id;

-- clean_up: take those that are due and at which nobody is
update operon_workflows set cleaner = :executor, cleanups = cleanups + 1
where id in (
  select id from operon_workflows
  where cleanup_until > :now and status > 3 and not erased and cleanups < 3
    and name in (select value from json_each(:names))
    and (instance is null or instance in (select value from json_each(:instances)))
    and (pin is null or pin = :version)
    and (
      cleaner is null or (cleaner = :executor and id not in (select value from json_each(:here)))
      or cleaner not in (select id from operon_executors where alive)
    )
  order by cleanup_until
  limit :limit
)
returning *;

-- cleaned: note that one is done
update operon_workflows set cleanup_until = null, cleaner = null
where id = :id and (cleaner = :executor or (cleaner is null and status = 6 and claim - 1 = :claim));

-- hand_back: return to the queue what an executor runs, each under its claim; with no :guards, all it has
update operon_workflows
set status = 0, executor = null, ready_at = :now, output = null, error = null, attempts = attempts - :unbegun
where status = 1 and executor = :executor
  and (:guards is null or (id, claim) in (select json_extract(value, '$[0]'), json_extract(value, '$[1]') from json_each(:guards)));

-- An executor that was dead for so long that it is forgotten may have claimed something after all.
-- What was recorded since the last takeover begins the count anew, and so does parking: not the workflow kills.
-- take_over: requeue what the dead hold, each time later, and hold what has died too often
update operon_workflows
set
  status = iif(before < :poison, 0, 3),
  error = iif(before < :poison, null, :error),
  ready_at = iif(before < :poison, :now + min(300, (1 << min(before, 9)) - 1), null),
  executor = null, claim = claim + 1, takeovers = before + 1
from (
  select
    id as orphan,
    iif(exists (select 1 from operon_steps s where s.workflow_id = w.id and s.claim = w.claim), 0, takeovers) as before
  from operon_workflows w
  where status = 1 and executor not in (select id from operon_executors where alive)
  order by id
  limit :limit
)
where id = orphan;

-- awaited: what a parked one waits for
select awaited from operon_awaits where workflow_id = :id order by awaited;

-- standing: which have their record, and under which nonce
select id, nonce from operon_workflows where id in (select value from json_each(:ids)) and not erased;

-- look: where some stand
select id, status, output, error, iif(erased, ended_at, null) from operon_workflows
where id in (select value from json_each(:ids));

-- describe: one as it stands
select * from operon_workflows where id = :id;

-- running: what an executor runs
select * from operon_workflows where status = 1 and executor = :executor order by id;

-- find: those that match, newest first. The first condition repeats two below it, for the index on created_at
select * from operon_workflows w
where created_at <= min(ifnull(:until, 9e99), ifnull(:after_at, 9e99))
  and created_at >= ifnull(:since, -9e99)
  and not erased
  and (:until is null or created_at < :until)
  and (:after_at is null or (created_at, id) < (:after_at, :after_id))
  and (:name is null or name = :name)
  and (:parent is null or parent = :parent)
  and (:user is null or user = :user)
  and (:queue is null or queue = :queue)
  and (:status is null or status in (select value from json_each(:status)))
  and not exists (
    select 1 from json_each(:attributes) wanted
    where not exists (
      select 1 from json_each(iif(json_valid(w.attributes), w.attributes, null)) label
      where label.key = wanted.key and label.type = wanted.type and label.value is wanted.value
    )
  )
order by created_at desc, id desc
limit :limit;
