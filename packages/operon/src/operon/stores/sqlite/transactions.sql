-- What runs on the user's own connection, inside the user's transaction. That has held the writer's lock since it began,
-- so what it reads cannot change before it commits. SQLite's own clock, because nobody else's is there.

-- The transaction's last statement: fence and record in one. Zero rows mean fenced, a unique constraint that failed
-- means that the position is recorded already. The number is one more than the last: writers come one at a time.
-- record: append the transaction's entry to the journal while the claim holds
insert into operon_steps (
  workflow_id, position, ordinal, kind, name, digest, output, error, child, attempt, version, isolation,
  started_at, ended_at, claim, xid
)
select
  w.id, :position, :ordinal, :kind, :name, :digest, :output, :error, :child, :attempt, :version, :isolation,
  clock.now - :elapsed, clock.now, w.claim, transactions + 1
from operon_workflows w, operon_identity, (select round((julianday('now') - 2440587.5) * 86400, 6) as now) clock
where w.id = :workflow_id and w.claim = :claim and w.status = 1
returning position;

-- settle: enter a one-transaction workflow, already ended, with the user's rows; a failed constraint: it was here before
insert into operon_workflows (
  id, name, status, claim, attempts, created_at, started_at, ended_at, deadline, nonce, digest, version, pin, instance,
  parent, root, user, roles, request_id, traceparent, attributes, input, output, error
)
select
  :id, :name, :status, :claim, 1, now - :elapsed, now - :elapsed, now,
  min(ifnull(:deadline, now + :timeout), ifnull(now + :timeout, :deadline)), :nonce, :digest, :version, :pin, :instance,
  :parent, :root, :user, :roles, :request_id, :traceparent, :attributes, :input, :output, :error
from (select round((julianday('now') - 2440587.5) * 86400, 6) as now)
returning id;

-- settle_step: enter its one step, the last statement before the commit
insert into operon_steps (
  workflow_id, position, ordinal, kind, name, digest, output, error, child, attempt, version, isolation,
  started_at, ended_at, claim, xid
)
select
  :workflow_id, :position, :ordinal, :kind, :name, :digest, :output, :error, :child, :attempt, :version, :isolation,
  now - :elapsed, now, :claim, transactions + 1
from operon_identity, (select round((julianday('now') - 2440587.5) * 86400, 6) as now)
returning position;

-- join: start a workflow with the caller's transaction; no row means that the id is taken
insert into operon_workflows (
  id, name, status, claim, ready_at, created_at, deadline, nonce, digest, version, pin, instance, parent, root, user, roles,
  request_id, traceparent, attributes, input, queue, partition, priority, rank, dedupe
)
select
  :id, :name, 0, :nonce >> 20 << 20, iif(:queue is null or :delay > 0, now + :delay, null), now, min(ifnull(:deadline, now + :timeout), ifnull(now + :timeout, :deadline)),
  :nonce, :digest, :version, :pin, :instance, :parent, :root, :user, :roles, :request_id, :traceparent, :attributes,
  :input, :queue, :partition, :priority, now - 60 * :priority, :dedupe
from (select round((julianday('now') - 2440587.5) * 86400, 6) as now)
where true
on conflict do nothing
returning id;

-- joined: what has this id already, or else this dedupe
select name, digest, status, id, iif(erased, ended_at, null) from operon_workflows
where id = :id or (dedupe = :dedupe and status < 4)
order by id <> :id
limit 1;
