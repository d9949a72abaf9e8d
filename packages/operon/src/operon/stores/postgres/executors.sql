-- Processes and their leases, by the database's clock.

-- enlist: enter a new executor
insert into operon.executors (lease_until, pid, app, host, born, version)
values (
    clock_timestamp() + make_interval(secs => :ttl::float8), :pid::int, :app::text, :host::text, :born::text,
    :version::text
)
returning id;

-- All that a process must know every three seconds, in one statement that costs nothing when nothing happens: 1.6 ms
-- with 10,000 running rows, against 60 ms for a lease on every row. `stirred` looks for parked workflows whose
-- wake-up was lost with the process that owed it, and for rows that the dead still hold: they were locked when the
-- others were taken over, or claimed later, by one that did not know yet that it was dead. `lined` says that a queue has
-- a line and room to run more of it: whoever found its row locked, or was told of it by a word that got lost, looks
-- again. Whether a rate lets it run is left to that look.
-- Where somebody else has locked the executor's row, its lease is not renewed, and all else is told nevertheless.
-- beat: renew the lease; see what is mine, expired and due
with mine as materialized (
    select id from operon.executors where id = :executor::bigint and alive for no key update skip locked
), renewed as (
    update operon.executors e set
        beat = beat + 1, lease_until = clock_timestamp() + make_interval(secs => :ttl::float8)
    from mine where e.id = mine.id
), expired as materialized (
    select id, beat from operon.executors
    where alive and lease_until < statement_timestamp() and id <> :executor::bigint
)
select
    exists (select from operon.executors where id = :executor::bigint and alive) as alive,
    extract(epoch from clock_timestamp())::float8 as now,
    (select count(*) from operon.workflows where executor = :executor::bigint and status = 1) as running,
    array(select id from expired order by id) as ids,
    array(select beat from expired order by id) as beats,
    -- As numbers, for an instant that somebody set to infinity cannot be subtracted from.
    extract(epoch from (
        select min(ready_at) from operon.workflows where status in (0, 2)
    ))::float8 - extract(epoch from clock_timestamp())::float8 as due,
    extract(epoch from (
        select next_at from operon.schedules
        where not paused and next_at is not null
            and case when declared then name = any(:schedules::text[]) else function = any(:functions::text[]) end
        order by next_at limit 1
    ))::float8 - extract(epoch from clock_timestamp())::float8 as planned,
    exists (select from operon.wakes) or exists (
        select from operon.executors e
        where not e.alive and exists (select from operon.workflows w where w.executor = e.id and w.status = 1)
    ) as stirred,
    exists (
        select from operon.queues q
        where not q.paused
            and exists (select from operon.workflows w where w.queue = q.name and w.status = 0 and w.ready_at is null)
            and (q.concurrency is null or q.concurrency > (
                select count(*) from operon.workflows w where w.queue = q.name and w.status = 1
            ))
            and (q.worker_concurrency is null or q.worker_concurrency > (
                select count(*) from operon.workflows w
                where w.queue = q.name and w.status = 1 and w.executor = :executor::bigint
            ))
    ) as lined,
    exists (
        select from operon.workflows
        where cleanup_until > statement_timestamp() and status > 3 and erased = 0 and cleanups < 3
            and (
                cleaner is null or cleaner = :executor::bigint
                or cleaner not in (select id from operon.executors where alive)
            )
    ) as untidy;

-- executors: every executor known, living ones first
select id, beat, app, host, pid, born, alive, extract(epoch from lease_until)::float8 as lease_until, version
from operon.executors order by alive desc, id;

-- bury: declare dead those whose beat stood still since it was seen
with dead as materialized (
    select id from operon.executors
    where (id, beat) in (select * from unnest(:ids::bigint[], :beats::bigint[])) and alive
        and (:proven::boolean or lease_until < statement_timestamp())
    for no key update skip locked
)
update operon.executors e set alive = false from dead where e.id = dead.id returning e.id;

-- A query over what the dead hold, not a consequence of their death, so that it may be repeated by anybody, at any
-- time, and finds a claim that committed late, even of an executor that was dead for so long that it is forgotten. A
-- row that a statement in flight has locked is left for the next time.
-- What was recorded since the last takeover begins the count anew, and so does parking: not the workflow kills.
-- take_over: requeue rows of dead executors, each time later, and hold what has been requeued too often
with orphan as materialized (
    select id from operon.workflows
    where status = 1 and executor not in (select id from operon.executors where alive)
    limit :limit::int
    for no key update skip locked
), counted as (
    select w.id, case
        when exists (select from operon.steps s where s.workflow_id = w.id and s.claim = w.claim) then 0
        else w.takeovers
    end as before
    from operon.workflows w join orphan on orphan.id = w.id
)
update operon.workflows w set
    status = case when before >= :poison::int then 3 else 0 end,
    error = case when before >= :poison::int then :error::text end,
    ready_at = case
        when before < :poison::int
        then clock_timestamp() + make_interval(secs => least(300, 2 ^ least(before, 10) - 1))
    end,
    executor = null, claim = claim + 1, takeovers = before + 1
from counted where w.id = counted.id
returning w.id;

-- running: the rows that an executor runs, as far as the database knows
select * from operon.workflows where executor = :executor::bigint and status = 1 order by id;

-- What is locked stays with this executor: it finds at its next heartbeats that nobody runs it, and hands it back again.
-- hand_back: return workflows of an executor to the queue, each under its claim; with no :ids, all it has
with mine as materialized (
    select id from operon.workflows
    where executor = :executor::bigint and status = 1
        and (:ids::text[] is null or (id, claim) in (select * from unnest(:ids::text[], :claims::bigint[])))
    order by id for no key update skip locked
)
update operon.workflows w
set status = 0, executor = null, ready_at = clock_timestamp(), output = null, error = null,
    attempts = attempts - :unbegun::int
from mine where w.id = mine.id
returning w.id;

-- retire: end a lease; where its row is locked, it runs out by itself
update operon.executors set alive = false
where id = any(array(select id from operon.executors where id = :executor::bigint for no key update skip locked));

-- rewind: what was ready by the clock before it was put back is ready, in the same order
with waiting as materialized (
    select id from operon.workflows
    where status in (0, 2) and ready_at > statement_timestamp()
        and ready_at <= statement_timestamp() + make_interval(secs => :back::float8)
    order by id for no key update skip locked
)
update operon.workflows w set ready_at = ready_at - make_interval(secs => :back::float8)
from waiting where w.id = waiting.id
returning w.id;

-- rewind_leases: let leases that were given before it was put back run out in their time
update operon.executors set lease_until = greatest(
    lease_until - make_interval(secs => :back::float8), clock_timestamp() + make_interval(secs => :ttl::float8)
)
where id = any(array(
    select id from operon.executors
    where alive and lease_until > clock_timestamp() + make_interval(secs => :back::float8)
    for no key update skip locked
))
returning id;

-- rewind_admissions: admissions that seem to come were some time ago, at least now
update operon.admissions set at = clock_timestamp() where at > clock_timestamp() returning queue;
