-- enlist: enter a process under an id that nobody had before
insert into operon_executors (app, host, pid, born, version, lease_until)
values (:app, :host, :pid, :born, :version, :now + :ttl)
returning id;

-- beat: renew the lease of the living; the dead stay dead
update operon_executors set beat = beat + 1, lease_until = :now + :ttl where id = :executor and alive;

-- pulse: what a process must know
select
  (select count(*) from operon_workflows where status = 1 and executor = :executor),
  (select min(ready_at) from operon_workflows where status in (0, 2)) - :now,
  exists (select 1 from operon_wakes) or exists (
    select 1 from operon_executors e
    where not e.alive and exists (select 1 from operon_workflows w where w.executor = e.id and w.status = 1)
  ),
  exists (
    select 1 from operon_queues q
    where not q.paused
      and exists (select 1 from operon_workflows w where w.queue = q.name and w.status = 0 and w.ready_at is null)
      and (q.concurrency is null or q.concurrency > (
        select count(*) from operon_workflows w where w.queue = q.name and w.status = 1
      ))
      and (q.worker_concurrency is null or q.worker_concurrency > (
        select count(*) from operon_workflows w where w.queue = q.name and w.status = 1 and w.executor = :executor
      ))
  ),
  exists (
    select 1 from operon_workflows
    where cleanup_until > :now and status > 3 and not erased and cleanups < 3
      and (cleaner is null or cleaner = :executor or cleaner not in (select id from operon_executors where alive))
  );

-- expired: living executors whose lease has run out
select id, beat from operon_executors where alive and lease_until < :now order by id;

-- executors: all, living ones first
select id, beat, app, host, pid, born, alive, lease_until, version from operon_executors order by not alive, id;

-- bury: declare dead whose beat stood still, once the lease is over or the death is proven
update operon_executors set alive = 0
where id = :executor and beat = :beat and alive and (:proven or lease_until < :now);

-- retire: leave
update operon_executors set alive = 0 where id = :executor;

-- rewind: what was ready by the clock before it was put back is ready, in the same order
update operon_workflows set ready_at = ready_at - :back
where status in (0, 2) and ready_at > :now and ready_at <= :now + :back;

-- rewind_leases: let leases that were given before it was put back run out in their time
update operon_executors set lease_until = max(lease_until - :back, :now + :ttl)
where alive and lease_until > :now + :back;

-- rewind_admissions: admissions that seem to come were some time ago, at least now
update operon_admissions set at = :now where at > :now;
