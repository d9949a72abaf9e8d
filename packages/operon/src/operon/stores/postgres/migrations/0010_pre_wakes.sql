-- Who ended, or is held, while somebody awaited it: noted by the commit that ends it, whatever statement that is, and
-- forgotten once those who waited are ready. So a heartbeat looks at what has ended, and not at all who wait.

create table operon.wakes (awaited text collate "C" primary key);

create function operon.note_wake() returns trigger
language plpgsql
set search_path = pg_catalog, operon, pg_temp
set enable_seqscan = off
as $$
begin
    if exists (select from operon.awaits a where a.awaited = old.id) then
        insert into operon.wakes values (old.id) on conflict do nothing;
    end if;
    return null;
end
$$;

create trigger wakes after update of status on operon.workflows
for each row when (old.status < 3 and new.status >= 3) execute function operon.note_wake();

-- Those who wait already, for what ended before.
insert into operon.wakes
select distinct awaited from operon.awaits a
where not exists (select from operon.workflows t where t.id = a.awaited and t.status < 3)
on conflict do nothing;
