-- Who waits for many, one after the other, is woken by the end of the last, and by the failure of another: the success of
-- those before is quiet.

alter table operon_awaits add column quiet integer not null default 0;

drop trigger operon_workflows_wakes;

create trigger operon_workflows_wakes after update of status on operon_workflows
when old.status < 3 and new.status >= 3
begin
  insert or ignore into operon_wakes select old.id where exists (
    select 1 from operon_awaits where awaited = old.id and (not quiet or new.status <> 4)
  );
end;
