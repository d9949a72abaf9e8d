-- append: write an entry, if the position is free
insert into operon_steps (
  workflow_id, position, ordinal, kind, name, digest, output, error, child, attempt, version, isolation,
  started_at, ended_at, claim
)
values (
  :workflow_id, :position, :ordinal, :kind, :name, :digest, :output, :error, :child, :attempt, :version, :isolation,
  :now - :elapsed, :now, :claim
)
on conflict do nothing;

-- appended: the same entry, if this claim has written it before: its answer was lost
select output from operon_steps
where workflow_id = :workflow_id
  and position = :position
  and (claim, ordinal, kind, name, digest) = (:claim, :ordinal, :kind, :name, :digest)
  and (:after is not null or output is :output)
  and error is :error;

-- load: whole journals, each in the order of completion
select
  workflow_id, position, ordinal, kind, name, digest, output, error, child, null as after, ended_at - started_at as elapsed,
  attempt, version, isolation, started_at, ended_at
from operon_steps
where workflow_id in (select value from json_each(:ids))
order by workflow_id, ordinal, position;
