-- Retention: a record that is past its time shrinks to its key, which is deleted later.
-- Erased: 0 no, 1 yes, and its journal is being removed, 2 nothing but the key is left.

alter table operon.workflows add column erased smallint not null default 0;

create index workflows_ended on operon.workflows (name, status, ended_at, id) where status > 3 and erased = 0;
create index workflows_keys on operon.workflows (name, status, ended_at, id) where erased = 2;
create index workflows_emptying on operon.workflows (id) where erased = 1;
