-- Whose success wakes nobody is noted beside the waits, in a table of its own: a wait is two ids, whoever writes it.

drop trigger operon_workflows_wakes;

create table operon_quiet (workflow_id text not null, awaited text not null, primary key (workflow_id, awaited)) without rowid;
insert into operon_quiet select workflow_id, awaited from operon_awaits where quiet;
alter table operon_awaits drop column quiet;

create trigger operon_awaits_quiet after delete on operon_awaits
begin
  delete from operon_quiet where workflow_id = old.workflow_id and awaited = old.awaited;
end;

create trigger operon_workflows_wakes after update of status on operon_workflows
when old.status < 3 and new.status >= 3
begin
  insert or ignore into operon_wakes select old.id where exists (
    select 1 from operon_awaits a
    where awaited = old.id and (new.status <> 4 or (workflow_id, awaited) not in (select workflow_id, awaited from operon_quiet))
  );
end;
