-- Who was cancelled, or passed a deadline, while no process ran it: until when a clean-up may begin, how often one has
-- begun, and which executor is at it.

alter table operon.workflows add column cleanup_until timestamptz;
alter table operon.workflows add column cleanups smallint not null default 0;
alter table operon.workflows add column cleaner bigint;
create index workflows_cleanups on operon.workflows (cleanup_until) where cleanup_until is not null;
