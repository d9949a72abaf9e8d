-- Schedules: what is started when, the next instant at which it is, and what became of the last one.
-- `call` is a JSON object: the function's name, its arguments and its options. Null in `next_at`: it never comes again.

create table operon_schedules (
  name text not null primary key,
  app text not null,
  declared integer not null, -- in an app's code; else it was made at run time
  function text not null,
  cron text not null,
  tz text not null,
  catch_up text not null,
  overlap text not null,
  call text not null,
  paused integer not null,
  turn integer not null, -- counts the changes
  next_at real,
  last text, -- the workflow that was started last
  last_at real,
  skipped integer not null,
  skipped_at real
) strict;

create index operon_schedules_next on operon_schedules (next_at) where not paused and next_at is not null;
