-- Reading, claiming, waking and cancelling workflows. Instants go in and come out as seconds since 1970.

-- The ready ones, oldest first; rows that another claimer has locked are left to it. The number of the claim is what fences
-- everybody who ran the row before. Filtered by statement_timestamp(), because clock_timestamp() is no condition for
-- an index: 16 ms against 0.02 with 100,000 sleepers. Not ordered by id, too: those that are due at the same instant
-- would all be sorted, each time.
-- claim: take up to :limit ready workflows
with picked as materialized (
    select id, ready_at from operon.workflows
    where status in (0, 2) and queue is null and ready_at <= statement_timestamp() and name = any(:names::text[])
        and (instance is null or instance = any(:instances::text[])) and (pin is null or pin = :version::text)
    order by ready_at
    limit :limit::int
    for no key update skip locked
)
update operon.workflows w set
    status = 1, claim = claim + 1, executor = :executor::bigint, ready_at = null, attempts = attempts + 1,
    started_at = coalesce(started_at, clock_timestamp())
from picked where w.id = picked.id
returning w.*, picked.ready_at as since;

-- weights: how many bytes the journals of some workflows have
select workflow_id, sum(coalesce(octet_length(output), 0) + coalesce(octet_length(error), 0))::bigint as weight
from operon.steps where workflow_id = any(:ids::text[]) group by workflow_id;

-- describe: one workflow
select * from operon.workflows where id = :id::text;

-- awaited: what a parked workflow waits for
select awaited from operon.awaits where workflow_id = :id::text order by awaited;

-- standing: which workflows have their record, and under which nonce
select id, nonce from operon.workflows where id = any(:ids::text[]) and erased = 0;

-- look: where some workflows stand
select
    id, status, output, error, case when erased > 0 then extract(epoch from ended_at)::float8 end as erased
from operon.workflows where id = any(:ids::text[]);

-- find: the workflows that match, newest first, behind :after if given
select * from operon.workflows
where erased = 0
    and (:name::text is null or name = :name::text)
    and (:status::int[] is null or status = any(:status::int[]))
    and (:parent::text is null or parent = :parent::text)
    and (:user::text is null or "user" = :user::text)
    and (:queue::text is null or queue = :queue::text)
    and (:since::float8 is null or created_at >= to_timestamp(:since::float8))
    and (:until::float8 is null or created_at < to_timestamp(:until::float8))
    and (:labels::text is null or operon.has_labels(attributes, :labels::text))
    and (:after_at::float8 is null or created_at <= to_timestamp(:after_at::float8))  -- a bound for the index
    and (
        :after_at::float8 is null or created_at < to_timestamp(:after_at::float8)
        or created_at = to_timestamp(:after_at::float8) and id < :after_id::text
    )
order by created_at desc, id desc
limit :limit::int;

-- count: how many workflows match
select count(*) from operon.workflows
where erased = 0
    and (:name::text is null or name = :name::text)
    and (:status::int[] is null or status = any(:status::int[]))
    and (:parent::text is null or parent = :parent::text)
    and (:user::text is null or "user" = :user::text)
    and (:queue::text is null or queue = :queue::text)
    and (:since::float8 is null or created_at >= to_timestamp(:since::float8))
    and (:until::float8 is null or created_at < to_timestamp(:until::float8))
    and (:labels::text is null or operon.has_labels(attributes, :labels::text));

-- One pass over the tree; a child that starts meanwhile, under a parent whose lock it had first, is found by the next,
-- whose snapshot is newer. So the caller repeats this until it answers zero, and only then is nobody left. A child
-- cannot start after its parent's row is cancelled, for it locks that row and looks. Who had ended before the :first
-- pass keeps what descends from it.
-- cancel: end a workflow, and with :children what descends from it, even below one that has ended
with recursive tree as (
    select id from operon.workflows where id = :id::text and (status < 4 or not :first::boolean)
    union
    select w.id from operon.workflows w join tree on w.parent = tree.id where :children::boolean
), live as materialized (
    select id from operon.workflows
    where id in (select id from tree) and status < 4
    order by id for no key update
)
update operon.workflows w set
    status = 6, claim = claim + 1, ready_at = null, ended_at = clock_timestamp(), output = null,
    error = null,
    cleanup_until = case when status < 3 and attempts > 0 then clock_timestamp() + interval '1 hour' end,
    cleaner = case when status = 1 then executor end
from live where w.id = live.id
returning w.id;

-- clean_up: take those that are due and at which nobody is
with picked as materialized (
    select id from operon.workflows
    where cleanup_until > statement_timestamp() and status > 3 and erased = 0 and cleanups < 3
        and name = any(:names::text[]) and (instance is null or instance = any(:instances::text[]))
        and (pin is null or pin = :version::text)
        and (
            cleaner is null or (cleaner = :executor::bigint and id <> all(:here::text[]))
            or cleaner not in (select id from operon.executors where alive)
        )
    order by cleanup_until
    limit :limit::int
    for no key update skip locked
)
update operon.workflows w set cleaner = :executor::bigint, cleanups = cleanups + 1
from picked where w.id = picked.id
returning w.*;

-- cleaned: note that one is done
update operon.workflows set cleanup_until = null, cleaner = null
where id = :id::text
    and (cleaner = :executor::bigint or (cleaner is null and status = 6 and claim - 1 = :claim::bigint));

-- revoked: the claims under which what is cancelled of a tree may still be run
with recursive tree as (
    select id from operon.workflows where id = :id::text
    union
    select w.id from operon.workflows w join tree on w.parent = tree.id where :children::boolean
)
select id, claim - 1 as claim from operon.workflows where status = 6 and id in (select id from tree) order by id;

-- Who is locked is passed by here, and the note stays: the next heartbeat finds it, and asks for all that are left.
-- wake: make ready the parked workflows that await one of these; with none, one of all who are noted
with noted as materialized (
    select awaited from operon.wakes
    where :targets::text[] is null or awaited = any(:targets::text[])
    order by awaited
    limit 1000
    for update skip locked
), over as materialized (
    select awaited from noted union select unnest(:targets::text[])
), sleeper as materialized (
    select id from operon.workflows
    where id in (
            select a.workflow_id from operon.awaits a
            where a.awaited in (select awaited from over)
                and (not a.quiet or not exists (select from operon.workflows t where t.id = a.awaited and t.status = 4))
        )
        and status = 2 and (ready_at is null or ready_at > statement_timestamp())
    order by id for no key update skip locked
), forgotten as (
    delete from operon.wakes w using noted
    where w.awaited = noted.awaited and not exists (
        select from operon.awaits a join operon.workflows p on p.id = a.workflow_id
        where a.awaited = noted.awaited
            and (not a.quiet or not exists (select from operon.workflows t where t.id = a.awaited and t.status = 4))
            and p.status = 2 and (p.ready_at is null or p.ready_at > statement_timestamp())
            and p.id not in (select id from sleeper)
    )
)
update operon.workflows w set ready_at = clock_timestamp() from sleeper where w.id = sleeper.id returning w.id;
