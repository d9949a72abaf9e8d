-- listen: hear what is said in this database
listen operon;

-- shout: say words to all who listen; equal ones are heard once
select pg_notify('operon', word) from unnest(:words::text[]) as word;
