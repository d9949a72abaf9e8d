-- What runs on the user's own connection, inside the user's transaction. Nothing here reads `steps` or updates a row
-- of the engine: under SERIALIZABLE that would make up to 83 % of transactions fail for nothing.

-- lock: keep two runs of a one-transaction workflow of this id apart; false means that another is under way
select pg_try_advisory_xact_lock(hashtextextended(:id::text, 7)) as locked;

-- The transaction's last statement: fence and record in one. Zero rows mean fenced, 23505 that the position is
-- recorded already. The share lock makes a takeover wait for this commit; under SERIALIZABLE it fails (40001) after
-- any update of the row since the transaction's snapshot, so no zombie commits. The transaction's number and snapshot
-- are values of this insert because they cannot be found out later.
-- record: append the transaction's entry to the journal while the claim holds
insert into operon.steps (
    workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child, isolation,
    xid, snapshot, output, error
)
select
    w.id, :position::text, :ordinal::int, :attempt::int, w.claim,
    clock_timestamp() - make_interval(secs => :elapsed::float8), clock_timestamp(), :kind::text, :name::text,
    :digest::text, :version::text, :child::text, :isolation::text, pg_current_xact_id(), pg_current_snapshot(),
    :output::text, :error::text
from operon.workflows w
where w.id = :workflow_id::text and w.claim = :claim::bigint and w.status = 1
for share
returning position;

-- settle: enter a one-transaction workflow, already ended, and its step; 23505 means that it was here before
with settled as (
    insert into operon.workflows (
        id, claim, started_at, ended_at, deadline, nonce, status, attempts, name, digest, version, pin, instance,
        parent, root, "user", roles, request_id, traceparent, attributes, input, output, error, created_at
    )
    values (
        :id::text, :claim::bigint, transaction_timestamp(), clock_timestamp(),
        least(transaction_timestamp() + make_interval(secs => :timeout::float8), to_timestamp(:deadline::float8)),
        :nonce::bigint, :status::smallint, 1, :name::text, :digest::text, :version::text, :pin::text,
        :instance::text, :parent::text, :root::text, :user::text, :roles::text, :request_id::text,
        :traceparent::text, :attributes::text, :input::text, :output::text, :error::text, transaction_timestamp()
    )
    returning id
)
insert into operon.steps (
    workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, isolation,
    xid, snapshot, output, error
)
select
    id, :position::text, :ordinal::int, :attempt::int, :claim::bigint, clock_timestamp() - make_interval(secs => :elapsed::float8),
    clock_timestamp(), :kind::text, :name::text, :digest::text, :version::text, :isolation::text,
    pg_current_xact_id(), pg_current_snapshot(), :output::text, :error::text
from settled
returning position;

-- join: start a workflow with the caller's transaction; no row means that the id is taken. Locks no other row.
insert into operon.workflows (
    id, claim, ready_at, deadline, nonce, status, name, digest, version, pin, instance, parent, root, "user", roles,
    request_id, traceparent, attributes, input, queue, partition, priority, rank, dedupe
)
values (
    :id::text, :nonce::bigint >> 20 << 20,
    case
        when :queue::text is null or :delay::float8 > 0
        then clock_timestamp() + make_interval(secs => :delay::float8)
    end,
    least(clock_timestamp() + make_interval(secs => :timeout::float8), to_timestamp(:deadline::float8)),
    :nonce::bigint, 0, :name::text, :digest::text, :version::text, :pin::text, :instance::text, :parent::text,
    :root::text, :user::text, :roles::text, :request_id::text, :traceparent::text, :attributes::text, :input::text,
    :queue::text, :partition::text, :priority::int, clock_timestamp() - make_interval(mins => :priority::int),
    :dedupe::text
)
on conflict do nothing
returning id;

-- joined: what has this id already, or else this dedupe
select name, digest, status, id, case when erased > 0 then extract(epoch from ended_at)::float8 end as erased
from (
    select 1 as place, * from operon.workflows where id = :id::text
    union all select 2, * from operon.workflows where dedupe = :dedupe::text and status < 4
) as there
order by place limit 1;
