-- Only what is parked awaits anything, however it leaves. A statement that waited for the lock of whoever parked a
-- workflow is older than the note of what that awaits, and left it: so the notes go by a statement of their own, whose
-- snapshot is newer.

create function operon.forget_awaits() returns trigger
language plpgsql
as $$
begin
    delete from operon.awaits where ctid = any(array(
        select a.ctid from operon.awaits a where a.workflow_id = old.id for update skip locked
    ));
    return null;
end
$$;

create trigger workflows_leave after update of status on operon.workflows
for each row when (old.status = 2 and new.status <> 2) execute function operon.forget_awaits();

delete from operon.awaits a
where not exists (select from operon.workflows w where w.id = a.workflow_id and w.status = 2);
