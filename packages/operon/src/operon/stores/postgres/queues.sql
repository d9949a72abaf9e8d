-- Queues: what the code declares, what people change, who is in line. How a queue admits: `operon.admit`.

-- `operon.admit` locks the rows of the queues it is given, which is a write, and a wait for the disk: so it is given
-- those alone where somebody waits. Who comes a moment later says so.
-- admit: take from the queues as much as their limits and my places allow, in the order in which it is served
select admitted.*
from (
    select array_agg(name) as names, array_agg(places) as places
    from unnest(:queues::text[], :places::int[]) as q (name, places)
    where exists (
            select from operon.workflows w where w.queue = q.name and w.status = 0 and w.ready_at is null
        )
        or exists (
            select from operon.workflows w
            where w.queue = q.name and w.status in (0, 2) and w.ready_at <= statement_timestamp()
        )
    having count(*) > 0
) as waited
cross join lateral operon.admit(
    :executor::bigint, :limit::int, waited.names, waited.places, :names::text[], :instances::text[], :version::text
) as admitted;

-- A launch that declares what is declared already waits for nobody who has the row locked.
-- seeded: whether an app declares a queue just so
select 1 from operon.queues
where name = :name::text and app = :app::text
    and (
        seed_concurrency, seed_worker_concurrency, seed_rate, seed_period, seed_partition_concurrency,
        seed_partition_rate, seed_partition_period
    ) is not distinct from (
        :concurrency::int, :worker_concurrency::int, :rate::int, :period::float8, :partition_concurrency::int,
        :partition_rate::int, :partition_period::float8
    );

-- seed: declare a queue; no row: an app that is alive declares it otherwise. Limits that somebody changed stay
insert into operon.queues as q (
    name, app, concurrency, worker_concurrency, rate, period, partition_concurrency, partition_rate,
    partition_period, seed_concurrency, seed_worker_concurrency, seed_rate, seed_period,
    seed_partition_concurrency, seed_partition_rate, seed_partition_period
)
values (
    :name::text, :app::text, :concurrency::int, :worker_concurrency::int, :rate::int, :period::float8,
    :partition_concurrency::int, :partition_rate::int, :partition_period::float8, :concurrency::int,
    :worker_concurrency::int, :rate::int, :period::float8, :partition_concurrency::int, :partition_rate::int,
    :partition_period::float8
)
on conflict (name) do update set
    app = excluded.app,
    (
        concurrency, worker_concurrency, rate, period, partition_concurrency, partition_rate, partition_period
    ) = (
        select
            case when edited then q.concurrency else excluded.concurrency end,
            case when edited then q.worker_concurrency else excluded.worker_concurrency end,
            case when edited then q.rate else excluded.rate end,
            case when edited then q.period else excluded.period end,
            case when edited then q.partition_concurrency else excluded.partition_concurrency end,
            case when edited then q.partition_rate else excluded.partition_rate end,
            case when edited then q.partition_period else excluded.partition_period end
        from (values (
            (q.concurrency, q.worker_concurrency, q.rate, q.period, q.partition_concurrency, q.partition_rate, q.partition_period)
            is distinct from
            (q.seed_concurrency, q.seed_worker_concurrency, q.seed_rate, q.seed_period, q.seed_partition_concurrency, q.seed_partition_rate, q.seed_partition_period)
        )) as it (edited)
    ),
    seed_concurrency = excluded.seed_concurrency, seed_worker_concurrency = excluded.seed_worker_concurrency,
    seed_rate = excluded.seed_rate, seed_period = excluded.seed_period,
    seed_partition_concurrency = excluded.seed_partition_concurrency,
    seed_partition_rate = excluded.seed_partition_rate, seed_partition_period = excluded.seed_partition_period
where q.app = excluded.app
    or (
        q.seed_concurrency, q.seed_worker_concurrency, q.seed_rate, q.seed_period, q.seed_partition_concurrency,
        q.seed_partition_rate, q.seed_partition_period
    ) is not distinct from (
        excluded.seed_concurrency, excluded.seed_worker_concurrency, excluded.seed_rate, excluded.seed_period,
        excluded.seed_partition_concurrency, excluded.seed_partition_rate, excluded.seed_partition_period
    )
    or not exists (
        select from operon.executors e where e.app = q.app and e.alive and e.lease_until > statement_timestamp()
    )
returning app;

-- declared_by: which app declares a queue
select app from operon.queues where name = :name::text;

-- limit: change limits
update operon.queues set
    concurrency = :concurrency::int, worker_concurrency = :worker_concurrency::int, rate = :rate::int,
    period = :period::float8, partition_concurrency = :partition_concurrency::int,
    partition_rate = :partition_rate::int, partition_period = :partition_period::float8
where name = :name::text returning name;

-- reset_limits: take the limits that the code declares
update operon.queues set
    concurrency = seed_concurrency, worker_concurrency = seed_worker_concurrency, rate = seed_rate,
    period = seed_period, partition_concurrency = seed_partition_concurrency, partition_rate = seed_partition_rate,
    partition_period = seed_partition_period
where name = :name::text returning name;

-- hold_line: pause a queue, or resume it
update operon.queues set paused = coalesce(:paused::boolean, paused) where name = :name::text returning name;

-- queues: all, by name, and how many wait and run there
select
    q.*,
    (select count(*) from operon.workflows w where w.queue = q.name and w.status = 0) as queued,
    (select count(*) from operon.workflows w where w.queue = q.name and w.status = 1) as running
from operon.queues q order by name;

-- opening: in how many seconds the admission that fills a window leaves it, if anybody waits for that
with q as (
    select * from operon.queues
    where name = any(:queues::text[]) and not paused and (rate is not null or partition_rate is not null)
), instant as (
    select (
        select a.at from operon.admissions a where a.queue = q.name order by a.at desc limit 1 offset q.rate - 1
    ) + make_interval(secs => q.period) as at
    from q
    where q.rate is not null and exists (
        select from operon.workflows w where w.queue = q.name and w.status = 0 and w.ready_at is null
    )
    union all
    select (
        select a.at from operon.admissions a
        where a.queue = q.name and a.partition = p.partition
        order by a.at desc limit 1 offset q.partition_rate - 1
    ) + make_interval(secs => q.partition_period)
    from q join (select distinct queue, partition from operon.admissions) as p on p.queue = q.name
    where q.partition_rate is not null and exists (
        select from operon.workflows w
        where w.queue = q.name and w.partition = p.partition and w.status = 0 and w.ready_at is null
    )
)
select extract(epoch from min(at) - clock_timestamp())::float8 as seconds
from instant where at > clock_timestamp();

-- holder: who has a dedupe and is to make room; nobody, if the id that is to be started is there: then nothing starts
select id from operon.workflows
where dedupe = :dedupe::text and status < 4
    and not exists (select from operon.workflows where id = :id::text);
