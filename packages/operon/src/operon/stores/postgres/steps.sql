-- Reading the journal.

-- load: whole journals, each in the order in which things completed
select
    workflow_id, position, ordinal, kind, name, digest, output, error, child, extract(epoch from ended_at)::float8 - extract(epoch from started_at)::float8 as elapsed,
    attempt, version, isolation, extract(epoch from started_at)::float8 as started_at,
    extract(epoch from ended_at)::float8 as ended_at
from operon.steps where workflow_id = any(:ids::text[]) order by workflow_id, ordinal, position;

-- verify: how a workflow stands, and the entries that a claim wrote: decides what a lost commit did
select w.status, w.claim, w.output, w.error, s.position, s.output as recorded
from operon.workflows w
left join operon.steps s
    on s.workflow_id = w.id and s.claim = :claim::bigint and s.position = any(:positions::text[])
where w.id = :workflow_id::text;
