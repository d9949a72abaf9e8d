-- may_identify: whether this role may ask for the cluster's identifier
select has_function_privilege('pg_catalog.pg_control_system()', 'execute') as allowed;

-- system: the identifier of the cluster, the same for all its databases and for physical copies
select system_identifier::text as system from pg_control_system();

-- may_locate: whether this role may ask for the cluster's files
select has_function_privilege('pg_catalog.pg_stat_file(text)', 'execute') as allowed;

-- place: when a file that is never written again was made here: moving the directory keeps that, no copy does
select extract(epoch from (pg_stat_file('PG_VERSION')).change)::text as place;

-- here: the database we are connected to, and what was stored when it was first used
select
    (select d.oid::bigint from pg_database d where d.datname = current_database()) as database,
    i.system as known_system, i.database as known_database, i.place as known_place, i.era
from (values (1)) as one left join operon.identity i on true;

-- identify: store where this database is, the first time
insert into operon.identity (system, database, place) values (:system::text, :database::bigint, :place::text)
on conflict do nothing;

-- settle_here: note where it is now
update operon.identity set place = :place::text;

-- beats: how often each executor that is not known to be dead has beaten
select id, beat from operon.executors where alive;

-- adopt: accept that this database is a copy, and begin a new era
update operon.identity set system = :system::text, database = :database::bigint, place = :place::text, era = era + 1;

-- journal: the name of this journal, another one for each copy that is adopted
select journal || ':' || era as journal from operon.identity;
