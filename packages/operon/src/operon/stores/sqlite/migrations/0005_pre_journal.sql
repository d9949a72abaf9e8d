-- A name of its own for this journal: under it, other databases keep the records of transactions that belong to it.

alter table operon_identity add column journal text;

update operon_identity set journal = lower(hex(randomblob(16)));

create trigger operon_identity_journal after insert on operon_identity
begin
  update operon_identity set journal = lower(hex(randomblob(16)));
end;
