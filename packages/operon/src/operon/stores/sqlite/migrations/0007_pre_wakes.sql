-- Who ended, or is held, while somebody awaited it: noted by the commit that ends it, whatever statement that is, and
-- forgotten once those who waited are ready. So a heartbeat looks at what has ended, and not at all who wait.

create table operon_wakes (awaited text primary key) without rowid;

create trigger operon_workflows_wakes after update of status on operon_workflows
when old.status < 3 and new.status >= 3
begin
  insert or ignore into operon_wakes select old.id where exists (select 1 from operon_awaits where awaited = old.id);
end;

-- Those who wait already, for what ended before.
insert or ignore into operon_wakes
select awaited from operon_awaits
where not exists (select 1 from operon_workflows where id = awaited and status < 3);
