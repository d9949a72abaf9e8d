-- Retention: a record that is past its time shrinks to its key, which is deleted later.
-- Erased: 0 no, 1 yes, and its journal is being removed, 2 nothing but the key is left.

alter table operon_workflows add column erased integer not null default 0;

create index operon_workflows_ended on operon_workflows (name, status, ended_at, id)
  where ended_at is not null and erased = 0;
create index operon_workflows_keys on operon_workflows (name, status, ended_at, id) where erased = 2;
create index operon_workflows_emptying on operon_workflows (id) where erased = 1;
