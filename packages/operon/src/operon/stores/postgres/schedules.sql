-- Schedules. Instants go in and come out as seconds since 1970.

-- schedules: all, by name, or one
select * from operon.schedules where :name::text is null or name = :name::text order by name;

-- turn: lock one, to change it
select * from operon.schedules where name = :name::text for no key update;

-- plant_schedule: write one that is new
insert into operon.schedules (
    name, app, declared, paused, turn, next_at, last_at, skipped_at, skipped, last, function, cron, tz, catch_up,
    overlap, call
)
values (
    :name::text, :app::text, :declared::boolean, :paused::boolean, :turn::bigint, to_timestamp(:next_at::float8),
    to_timestamp(:last_at::float8), to_timestamp(:skipped_at::float8), :skipped::bigint, :last::text,
    :function::text, :cron::text, :tz::text, :catch_up::text, :overlap::text, :call::text
)
on conflict do nothing
returning name;

-- keep_schedule: write one as a whole, if it still is at the turn before
update operon.schedules set
    app = :app::text, declared = :declared::boolean, paused = :paused::boolean, turn = :turn::bigint,
    next_at = to_timestamp(:next_at::float8), last_at = to_timestamp(:last_at::float8),
    skipped_at = to_timestamp(:skipped_at::float8), skipped = :skipped::bigint, last = :last::text,
    function = :function::text, cron = :cron::text, tz = :tz::text, catch_up = :catch_up::text,
    overlap = :overlap::text, call = :call::text
where name = :name::text and turn = :turn::bigint - 1
returning name;

-- forget_schedule: delete one
delete from operon.schedules where name = :name::text returning name;

-- due_schedules: those that a process fires whose instant has come, longest due first; and the time, also with none
select extract(epoch from statement_timestamp())::float8 as now, s.*
from (values (1)) as one left join lateral (
    select * from operon.schedules
    where not paused and next_at <= statement_timestamp()
        and case when declared then name = any(:schedules::text[]) else function = any(:functions::text[]) end
    order by next_at, name
    limit :limit::int
) as s on true
order by s.next_at, s.name;

-- last_status: where a workflow stands
select status, attempts from operon.workflows where id = :id::text;

-- predecessor: where a workflow stands; locked, so that its end comes after this transaction or is seen by it
select status, attempts from operon.workflows where id = :id::text for no key update;

-- chain: park a workflow that has just been started, until another has ended
with parked as (
    update operon.workflows set status = 2, ready_at = null where id = :id::text returning id
)
insert into operon.awaits (workflow_id, awaited) select id, :awaited::text from parked returning workflow_id;
