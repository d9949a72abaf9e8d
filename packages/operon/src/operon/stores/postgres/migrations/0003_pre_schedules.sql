-- Schedules: what is started when, the next instant at which it is, and what became of the last one.
-- `call` is a JSON object: the function's name, its arguments and its options; text, for values may hold \u0000.
-- `declared`: in an app's code; else made at run time. `turn` counts the changes. `last` is the workflow that was
-- started last, `last_at` its planned instant. Null in `next_at`: it never comes again.

create table operon.schedules (
    name text collate "C" primary key,
    app text not null,
    declared boolean not null,
    paused boolean not null,
    turn bigint not null,
    next_at timestamptz,
    last_at timestamptz,
    skipped_at timestamptz,
    skipped bigint not null,
    last text collate "C",
    function text collate "C" not null,
    cron text not null,
    tz text not null,
    catch_up text not null,
    overlap text not null,
    call text not null
) with (fillfactor = 50);

create index schedules_next on operon.schedules (next_at) where not paused and next_at is not null;
