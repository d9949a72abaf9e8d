-- A workflow whose attributes are no JSON has no labels, and breaks no search for those of others.

create function operon.labels(attributes text) returns jsonb
language plpgsql immutable strict as $$
begin
    -- jsonb refuses \u0000; on both sides, a character of private use stands for it.
    return replace(attributes, '\u0000', '\ue000')::jsonb;
exception when data_exception then
    return null;
end
$$;

create or replace function operon.has_labels(attributes text, labels text) returns boolean
language sql immutable
return attributes is not null and not exists (
    select from jsonb_each(replace(labels, '\u0000', '\ue000')::jsonb) as wanted
    where operon.labels(attributes) -> wanted.key is distinct from wanted.value
);
