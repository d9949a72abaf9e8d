-- Who was cancelled, or passed a deadline, while no process ran it: until when a clean-up may begin, how often one has
-- begun, and which executor is at it.

alter table operon_workflows add column cleanup_until real;
alter table operon_workflows add column cleanups integer not null default 0;
alter table operon_workflows add column cleaner integer;
create index operon_workflows_cleanups on operon_workflows (cleanup_until) where cleanup_until is not null;
