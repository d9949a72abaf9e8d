-- Schedules: who takes the turn of one reads and writes it within one transaction of the file's only writer.

-- schedules: all, by name, or one
select * from operon_schedules where :name is null or name = :name order by name;

-- keep_schedule: write one as a whole, if it is new or still at the turn before
insert into operon_schedules (
  name, app, declared, function, cron, tz, catch_up, overlap, call, paused, turn, next_at, last, last_at, skipped,
  skipped_at
)
select
  :name, :app, :declared, :function, :cron, :tz, :catch_up, :overlap, :call, :paused, :turn, :next_at, :last, :last_at,
  :skipped, :skipped_at
where :turn = 1 or exists (select 1 from operon_schedules where name = :name)
on conflict (name) do update set
  app = excluded.app, declared = excluded.declared, function = excluded.function, cron = excluded.cron,
  tz = excluded.tz, catch_up = excluded.catch_up, overlap = excluded.overlap, call = excluded.call,
  paused = excluded.paused, turn = excluded.turn, next_at = excluded.next_at, last = excluded.last,
  last_at = excluded.last_at, skipped = excluded.skipped, skipped_at = excluded.skipped_at
where turn = excluded.turn - 1;

-- forget_schedule: delete one
delete from operon_schedules where name = :name;

-- due_schedules: those that a process fires whose instant has come, longest due first
select * from operon_schedules
where not paused and next_at is not null and next_at <= :now
  and iif(
    declared, name in (select value from json_each(:schedules)), function in (select value from json_each(:functions))
  )
order by next_at, name
limit :limit;

-- next_schedule: when the next of those that a process fires has its instant
select next_at from operon_schedules
where not paused and next_at is not null
  and iif(
    declared, name in (select value from json_each(:schedules)), function in (select value from json_each(:functions))
  )
order by next_at
limit 1;

-- chain: park a workflow that has just been started
update operon_workflows set status = 2, ready_at = null where id = :id;
