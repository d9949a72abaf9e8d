-- When the files of the cluster were made, as far as this role may ask: a copy has the identifier, and other files.

alter table operon.identity add column place text;
