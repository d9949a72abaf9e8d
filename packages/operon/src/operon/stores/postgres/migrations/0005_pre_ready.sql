-- What stands in line has no ready_at. In the index of what is ready, a plan found all lines of all queues together,
-- and read 100,000 rows to see who is next in one of them.

drop index operon.workflows_ready;
create index workflows_ready on operon.workflows (ready_at) where status in (0, 2) and ready_at is not null;
