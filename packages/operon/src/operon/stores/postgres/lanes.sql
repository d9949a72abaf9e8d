-- The engine's own writes: starts, journal entries, ends. One command alone takes a statement of its own, several
-- that meet ride in `batch`. Each is one commit, at READ COMMITTED.

-- start: insert a workflow, or fetch what has its id. No row: the parent is fenced, or a racing start is too new to see
with parent as materialized (
    select 1 from operon.workflows
    where id = :parent::text and claim = :parent_claim::bigint and status = 1
    for no key update
), made as (
    insert into operon.workflows (
        id, claim, executor, ready_at, created_at, started_at, deadline, nonce, status, attempts, name, digest, version, pin,
        instance, parent, root, "user", roles, request_id, traceparent, attributes, input, queue, partition, priority,
        rank, dedupe
    )
    select
        :id::text, (:nonce::bigint >> 20 << 20) + (:executor::bigint is not null)::int, :executor::bigint,
        case when :executor::bigint is null and (:queue::text is null or :delay::float8 > 0) then now + make_interval(secs => :delay::float8) end,
        now, case when :executor::bigint is not null then now end,
        least(now + make_interval(secs => :timeout::float8), to_timestamp(:deadline::float8)),
        :nonce::bigint, (:executor::bigint is not null)::int, (:executor::bigint is not null)::int, :name::text,
        :digest::text, :version::text, :pin::text, :instance::text, :parent::text, :root::text, :user::text,
        :roles::text, :request_id::text, :traceparent::text, :attributes::text, :input::text,
        :queue::text, :partition::text, :priority::int, now - make_interval(mins => :priority::int), :dedupe::text
    from (select clock_timestamp() as now) as clock
    where :parent::text is null or exists (select from parent)
    on conflict do nothing
    returning id
)
select
    :nonce::bigint as nonce, null::smallint as status, null as output, null as error, null as name, null as digest, id,
    null::float8 as erased
from made
union all (
    select
        nonce, status, output, error, name, digest, id,
        case when erased > 0 then extract(epoch from ended_at)::float8 end as erased
    from (
        select 1 as place, * from operon.workflows where id = :id::text
        union all select 2, * from operon.workflows where dedupe = :dedupe::text and status < 4
    ) as there
    where not exists (select from made)
    order by place limit 1
);

-- started: what has this id, and whether its would-be parent still runs under its claim
select
    exists (
        select from operon.workflows
        where id = :parent::text and claim = :parent_claim::bigint and status = 1
    ) as allowed,
    w.nonce, w.status, w.output, w.error, w.name, w.digest, w.id,
    case when w.erased > 0 then extract(epoch from w.ended_at)::float8 end as erased
from (values (1)) as one left join lateral (
    select * from (
        select 1 as place, * from operon.workflows where id = :id::text
        union all select 2, * from operon.workflows where dedupe = :dedupe::text and status < 4
    ) as there
    order by place limit 1
) as w on true;

-- write: append one entry while the claim holds; no row when it does not, or the position is taken
insert into operon.steps (
    workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child, isolation,
    output, error
)
select
    w.id, :position::text, :ordinal::int, :attempt::int, w.claim,
    clock_timestamp() - make_interval(secs => :elapsed::float8), clock_timestamp(), :kind::text, :name::text,
    :digest::text, :version::text, :child::text, :isolation::text,
    coalesce((extract(epoch from clock_timestamp())::float8 + :after::float8)::text, :output::text), :error::text
from operon.workflows w
where w.id = :workflow_id::text and w.claim = :claim::bigint and w.status = 1
for no key update
on conflict do nothing
returning case when :after::float8 is null then 0 else output::float8 end as instant;

-- finish: end, hold, hand back or park a workflow while the claim holds
update operon.workflows set
    status = :status::int, executor = case when :status::int > 2 then executor end, output = :output::text, error = :error::text,
    ready_at = case :status::int when 0 then clock_timestamp() when 2 then to_timestamp(:ready_at::float8) end,
    takeovers = case :status::int when 2 then 0 else takeovers end,
    ended_at = case when :status::int > 3 then clock_timestamp() end,
    cleanup_until = case when :cleaner::bigint is not null then clock_timestamp() + interval '1 hour' end,
    cleaner = :cleaner::bigint
where id = :workflow_id::text and claim = :claim::bigint and status = 1
returning 1 as done;

-- write_and_finish: append the last entry and, if it was written, end the workflow
with fence as materialized (
    select id, claim from operon.workflows
    where id = :workflow_id::text and claim = :claim::bigint and status = 1
    for no key update
), written as (
    insert into operon.steps (
        workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child,
        isolation, output, error
    )
    select
        id, :position::text, :ordinal::int, :attempt::int, claim,
        clock_timestamp() - make_interval(secs => :elapsed::float8), clock_timestamp(), :kind::text, :name::text,
        :digest::text, :version::text, :child::text, :isolation::text,
        coalesce((extract(epoch from clock_timestamp())::float8 + :after::float8)::text, :output::text), :error::text
    from fence
    on conflict do nothing
    returning case when :after::float8 is null then 0 else output::float8 end as instant
)
update operon.workflows w set
    status = :end_status::int, executor = case when :end_status::int > 2 then w.executor end,
    output = :end_output::text, error = :end_error::text,
    ready_at = case :end_status::int when 0 then clock_timestamp() when 2 then to_timestamp(:end_ready_at::float8) end,
    takeovers = case :end_status::int when 2 then 0 else w.takeovers end,
    ended_at = case when :end_status::int > 3 then clock_timestamp() end,
    cleanup_until = case when :end_cleaner::bigint is not null then clock_timestamp() + interval '1 hour' end,
    cleaner = :end_cleaner::bigint
from written
where w.id = :workflow_id::text and w.claim = :claim::bigint and w.status = 1
returning written.instant;

-- lock_rows: lock rows in the order in which everybody locks; the statement after it sees what they are
select 1 from operon.workflows where id = any(:ids::text[]) order by id for no key update;

-- Everything that arrived while the last commit was under way, in one statement and one commit; only what did not go
-- through is answered.
--
-- `locked` comes first and locks every row that the batch depends on, sorted, as everybody does: hence no deadlock, and
-- a takeover waits for statements in flight, so no late record lands after it. What follows acts on what the lock saw,
-- the newest version and not the snapshot's. `refused` is the fence: commands whose claim does not hold, and those one
-- of whose positions was written by another claim or says something else. Without the lock a zombie's record would land
-- after the new owner had loaded the journal; without the fence it would be written under a claim that is over.
-- `known` finds positions that are written: under the same claim and with the same words, by this command, whose answer
-- was lost. A transaction that commits between the snapshot and an insert can make an entry neither written nor known:
-- it is `lacking`, and the caller asks again, with a newer snapshot.
-- `ended` lets an end take place only if no entry of its command is lacking, and a park only if nobody that it awaits is
-- `over`; for that to be sound `lock_rows` has run before in the same transaction, because this statement's snapshot is
-- older than its own locks.
-- No `status = 1` there: it would invite the planner to scan the index of all that run, and `refused` has seen to it.
-- Sets are subtracted by `not in`, which is hashed, where joins would be nested loops: nothing tells the planner how
-- long the arrays are, and 256 rows against 256 take 28 ms that way, against 0.2.
-- batch: starts, entries and ends of many workflows, each as if it were alone
with locked as materialized (
    select id, claim, status from operon.workflows where id = any(:ids::text[]) order by id for no key update
), clock as materialized (
    select clock_timestamp() as now from (select count(*) from locked) as after_the_locks
), entry as materialized (
    select *
    from unnest(
        :entry_op::int[], :entry_workflow_id::text[], :entry_claim::bigint[], :entry_position::text[],
        :entry_ordinal::int[], :entry_kind::text[], :entry_name::text[], :entry_digest::text[], :entry_output::text[],
        :entry_error::text[], :entry_child::text[], :entry_after::float8[], :entry_elapsed::float8[],
        :entry_attempt::int[], :entry_version::text[], :entry_isolation::text[]
    ) as e (
        op, workflow_id, claim, position, ordinal, kind, name, digest, output, error, child, after, elapsed, attempt,
        version, isolation
    )
), known as materialized (
    select
        e.op, e.position, s.output,
        s.claim = e.claim
        and (s.ordinal, s.kind, s.name, s.digest) = (e.ordinal, e.kind, e.name, e.digest)
        and s.error is not distinct from e.error
        and (e.after is not null or s.output is not distinct from e.output) as same
    from entry e
    join operon.steps s on s.workflow_id = e.workflow_id and s.position = e.position
), refused as materialized (
    select op
    from unnest(:op_op::int[], :op_workflow_id::text[], :op_claim::bigint[]) as o (op, id, claim)
    where (id, claim) not in (select id, claim from locked where status = 1)
        or op in (select op from known where not same)
), written as (
    insert into operon.steps (
        workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child,
        isolation, output, error
    )
    select
        workflow_id, position, ordinal, attempt, claim, now - make_interval(secs => elapsed), now, kind, name, digest,
        version, child, isolation, coalesce((extract(epoch from now)::float8 + after)::text, output), error
    from entry cross join clock
    where op not in (select op from refused)
    order by workflow_id collate "C", position collate "C"
    on conflict do nothing
    returning workflow_id, position
), lacking as materialized (
    select op
    from entry
    where op not in (select op from refused)
        and (workflow_id, position) not in (select workflow_id, position from written)
        and (op, position) not in (select op, position from known)
), awaited as materialized (
    select *
    from unnest(:await_op::int[], :await_workflow_id::text[], :await_id::text[], :await_quiet::int[])
        as a (op, workflow_id, id, quiet)
), over as materialized (
    select op from awaited a where not exists (select from operon.workflows t where t.id = a.id and t.status < 3)
), ended as (
    update operon.workflows w set
        status = f.status, executor = case when f.status > 2 then w.executor end, output = f.output, error = f.error,
        ready_at = case f.status when 0 then clock_timestamp() when 2 then to_timestamp(f.ready_at) end,
        takeovers = case f.status when 2 then 0 else w.takeovers end,
        ended_at = case when f.status > 3 then clock_timestamp() end,
        cleanup_until = case when f.cleaner is not null then clock_timestamp() + interval '1 hour' end,
        cleaner = f.cleaner
    from unnest(
        :end_op::int[], :end_workflow_id::text[], :end_claim::bigint[], :end_status::int[], :end_output::text[],
        :end_error::text[], :end_ready_at::float8[], :end_cleaner::bigint[]
    ) as f (op, id, claim, status, output, error, ready_at, cleaner)
    where w.id = f.id and w.claim = f.claim
        and op not in (select op from refused)
        and op not in (select op from lacking)
        and op not in (select op from over)
    returning f.op
), waiting as (
    insert into operon.awaits (workflow_id, awaited, quiet)
    select workflow_id, id, quiet > 0 from awaited where op in (select op from ended)
    on conflict do nothing
), started as (
    insert into operon.workflows (
        id, claim, executor, ready_at, created_at, started_at, deadline, nonce, status, attempts, name, digest, version,
        pin, instance, parent, root, "user", roles, request_id, traceparent, attributes, input, queue,
        partition, priority, rank, dedupe
    )
    select
        id, (nonce >> 20 << 20) + (executor is not null)::int, executor,
        case when executor is null and (queue is null or delay > 0) then now + make_interval(secs => delay) end,
        now, case when executor is not null then now end,
        least(now + make_interval(secs => timeout), to_timestamp(deadline)),
        nonce, (executor is not null)::int, (executor is not null)::int, name, digest, version, pin, instance, parent,
        root, "user", roles, request_id, traceparent, attributes, input, queue, partition, priority,
        now - make_interval(mins => priority), dedupe
    from unnest(
        :start_id::text[], :start_executor::bigint[], :start_delay::float8[], :start_timeout::float8[],
        :start_deadline::float8[], :start_nonce::bigint[], :start_name::text[], :start_digest::text[],
        :start_version::text[], :start_pin::text[], :start_instance::text[], :start_parent::text[],
        :start_parent_claim::bigint[], :start_root::text[], :start_user::text[], :start_roles::text[],
        :start_request_id::text[], :start_traceparent::text[], :start_attributes::text[], :start_input::text[],
        :start_queue::text[], :start_partition::text[], :start_priority::int[], :start_dedupe::text[]
    ) as s (
        id, executor, delay, timeout, deadline, nonce, name, digest, version, pin, instance, parent, parent_claim, root,
        "user", roles, request_id, traceparent, attributes, input, queue, partition, priority, dedupe
    ) cross join clock
    where parent is null or (parent, parent_claim) in (select id, claim from locked where status = 1)
    order by id collate "C"
    on conflict do nothing
    returning id
)
select 'clock' as what, null::int as op, null as key, extract(epoch from now)::float8::text as output from clock
union all select 'refused', op, null, null from refused
union all select 'lacking', op, null, null from lacking
union all select 'same', op, position, output from known where same
union all select 'stayed', op, null, null from unnest(:end_op::int[]) as f (op) where op not in (select op from ended)
union all select 'unstarted', null, id, null from unnest(:start_id::text[]) as s (id)
where id not in (select id from started);

-- Most batches only write, and to make ready for starts and ends that do not come takes the server longer than to write
-- a dozen entries. A test holds these words to those of `batch`.
-- records: entries of many workflows, each command as if it were alone
with locked as materialized (
    select id, claim, status from operon.workflows where id = any(:ids::text[]) order by id for no key update
), clock as materialized (
    select clock_timestamp() as now from (select count(*) from locked) as after_the_locks
), entry as materialized (
    select *
    from unnest(
        :entry_op::int[], :entry_workflow_id::text[], :entry_claim::bigint[], :entry_position::text[],
        :entry_ordinal::int[], :entry_kind::text[], :entry_name::text[], :entry_digest::text[], :entry_output::text[],
        :entry_error::text[], :entry_child::text[], :entry_after::float8[], :entry_elapsed::float8[],
        :entry_attempt::int[], :entry_version::text[], :entry_isolation::text[]
    ) as e (
        op, workflow_id, claim, position, ordinal, kind, name, digest, output, error, child, after, elapsed, attempt,
        version, isolation
    )
), known as materialized (
    select
        e.op, e.position, s.output,
        s.claim = e.claim
        and (s.ordinal, s.kind, s.name, s.digest) = (e.ordinal, e.kind, e.name, e.digest)
        and s.error is not distinct from e.error
        and (e.after is not null or s.output is not distinct from e.output) as same
    from entry e
    join operon.steps s on s.workflow_id = e.workflow_id and s.position = e.position
), refused as materialized (
    select op
    from entry
    where (workflow_id, claim) not in (select id, claim from locked where status = 1)
        or op in (select op from known where not same)
), written as (
    insert into operon.steps (
        workflow_id, position, ordinal, attempt, claim, started_at, ended_at, kind, name, digest, version, child,
        isolation, output, error
    )
    select
        workflow_id, position, ordinal, attempt, claim, now - make_interval(secs => elapsed), now, kind, name, digest,
        version, child, isolation, coalesce((extract(epoch from now)::float8 + after)::text, output), error
    from entry cross join clock
    where op not in (select op from refused)
    order by workflow_id collate "C", position collate "C"
    on conflict do nothing
    returning workflow_id, position
), lacking as materialized (
    select op
    from entry
    where op not in (select op from refused)
        and (workflow_id, position) not in (select workflow_id, position from written)
        and (op, position) not in (select op, position from known)
)
select 'clock' as what, null::int as op, null as key, extract(epoch from now)::float8::text as output from clock
union all select 'refused', op, null, null from refused
union all select 'lacking', op, null, null from lacking
union all select 'same', op, position, output from known where same;
