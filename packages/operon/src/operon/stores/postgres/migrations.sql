-- ledger: whether any migration was applied yet
select to_regclass('operon.migrations') is not null as present;

-- applied: the migrations of this database
select number, checksum from operon.migrations;

-- exclude: keep everybody else from migrating until the end of the transaction
select pg_advisory_xact_lock(7305804402566528);

-- note_migration: remember that a script was applied
insert into operon.migrations (number, name, checksum) values (:number::int, :name::text, :checksum::text);
