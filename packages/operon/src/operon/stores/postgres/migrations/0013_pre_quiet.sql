-- Who waits for many, one after the other, is woken by the end of the last, and by the failure of another: the success of
-- those before is quiet.

alter table operon.awaits add column quiet boolean not null default false;

create or replace function operon.note_wake() returns trigger
language plpgsql
set search_path = pg_catalog, operon, pg_temp
set enable_seqscan = off
as $$
begin
    if exists (select from operon.awaits a where a.awaited = old.id and (not a.quiet or new.status <> 4)) then
        insert into operon.wakes values (old.id) on conflict do nothing;
    end if;
    return null;
end
$$;
