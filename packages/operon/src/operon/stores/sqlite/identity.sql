-- schema: whether anything was ever migrated here
select 1 from sqlite_master where name = 'operon_migrations';

-- migrations: which scripts were applied
select number, name, checksum from operon_migrations;

-- note: that a script was applied
insert into operon_migrations (number, name, checksum, applied_at) values (:number, :name, :checksum, :now);

-- identify: note which file this is, the first time
insert or ignore into operon_identity (one, file) values (1, :file);

-- identity: which file this was
select file from operon_identity;

-- journal: the name of this journal, another one for each copy that is adopted
select journal || ':' || era from operon_identity;

-- adopt: accept a copy as a database of its own
update operon_identity set file = :file, era = era + 1;
