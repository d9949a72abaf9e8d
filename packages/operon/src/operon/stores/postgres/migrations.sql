-- Reads the catalog as a table: to_regclass answers from a cache, which within a transaction does not notice that
-- another process has migrated while this one waited for `exclude`.
-- ledger: whether any migration was applied yet
select exists (select from pg_tables where schemaname = 'operon' and tablename = 'migrations') as present;

-- applied: the migrations of this database
select number, name, checksum from operon.migrations;

-- exclude: keep everybody else from migrating until the end of the transaction
select pg_advisory_xact_lock(7305804402566528);

-- note_migration: remember that a script was applied
insert into operon.migrations (number, name, checksum) values (:number::int, :name::text, :checksum::text);
