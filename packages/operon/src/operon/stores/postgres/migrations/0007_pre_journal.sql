-- A name of its own for this journal: under it, other databases keep the records of transactions that belong to it.

alter table operon.identity add column journal text not null default gen_random_uuid()::text;
