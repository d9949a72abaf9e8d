-- Whoever claims waits for nobody: neither for a sleeper's note of what it waits for, nor for an old admission.

-- Counting and taking are statements of their own, each with its own snapshot, because this function is volatile: so the
-- counts are taken after the lock on the queue's row. In one statement two claimers would see the same count, and two
-- would run where one may. Whoever finds that lock taken leaves the queue to him who has it.
-- Partitions are served in turn, beginning behind the one that was served last: with one free place at a time, "the
-- oldest first" would serve a tenant's 100,000 before another's ten. A claim looks into 256 partitions at most; the
-- next goes on behind them.
create or replace function operon.admit(
    me bigint, places integer, queue_names text[], queue_places integer[], wanted_names text[], wanted_instances text[],
    wanted_version text
) returns setof operon.workflows
language plpgsql volatile
set search_path = pg_catalog, operon, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    q record;
    room integer;
    part_room integer;
    depth integer;
    looked integer;
    around boolean;
    part text collate "C";
    last_part text collate "C";
    parts text[];
    rooms integer[];
    picked text[];
begin
    for q in
        select u.*, t.free
        from operon.queues u join unnest(queue_names, queue_places) as t (queue_name, free) on u.name = t.queue_name
        where not u.paused
        order by u.name
        for no key update of u skip locked
    loop
        exit when places <= 0;

        with due as materialized (
            select w.id from operon.workflows w
            where w.queue = q.name and w.status in (0, 2) and w.ready_at <= statement_timestamp()
            order by w.ready_at limit 1000
            for no key update skip locked
        ), forgotten as (
            delete from operon.awaits where ctid = any(array(
                select a.ctid from operon.awaits a join due on due.id = a.workflow_id for update of a skip locked
            ))
        )
        update operon.workflows w set status = 0, ready_at = null from due where w.id = due.id;

        room := least(places, q.free);
        if q.concurrency is not null then
            room := least(room, q.concurrency - (
                select count(*) from operon.workflows w where w.queue = q.name and w.status = 1
            ));
        end if;
        if q.worker_concurrency is not null then
            room := least(room, q.worker_concurrency - (
                select count(*) from operon.workflows w where w.queue = q.name and w.status = 1 and w.executor = me
            ));
        end if;
        if q.rate is not null or q.partition_rate is not null then
            delete from operon.admissions where ctid = any(array(
                select a.ctid from operon.admissions a
                where a.queue = q.name
                    and a.at <= clock_timestamp() - make_interval(secs => greatest(q.period, q.partition_period))
                for update skip locked
            ));
        end if;
        if q.rate is not null then
            room := least(room, q.rate - (
                select count(*) from operon.admissions a
                where a.queue = q.name and a.at > clock_timestamp() - make_interval(secs => q.period)
            ));
        end if;
        continue when room <= 0;

        parts := '{}';
        rooms := '{}';
        around := false;
        looked := 0;
        last_part := q.served;
        loop
            exit when looked >= 256 or cardinality(parts) >= room;
            part := null;
            if looked > 0 or not around then
                select w.partition into part from operon.workflows w
                where w.queue = q.name and w.status = 0 and w.ready_at is null and w.partition > last_part
                order by w.partition limit 1;
            end if;
            if part is null and not around then
                around := true;
                select w.partition into part from operon.workflows w
                where w.queue = q.name and w.status = 0 and w.ready_at is null
                order by w.partition limit 1;
            end if;
            exit when part is null or (around and part > q.served);
            last_part := part;
            looked := looked + 1;
            part_room := room;
            if q.partition_concurrency is not null then
                part_room := least(part_room, q.partition_concurrency - (
                    select count(*) from operon.workflows w
                    where w.queue = q.name and w.partition = part and w.status = 1
                ));
            end if;
            if q.partition_rate is not null then
                part_room := least(part_room, q.partition_rate - (
                    select count(*) from operon.admissions a
                    where a.queue = q.name and a.partition = part
                        and a.at > clock_timestamp() - make_interval(secs => q.partition_period)
                ));
            end if;
            if part_room > 0 then
                parts := parts || part;
                rooms := rooms || part_room;
            end if;
        end loop;

        picked := '{}';
        if cardinality(parts) > 0 then
            -- Few of each are enough, unless some lines are short; then look deeper.
            depth := (room + cardinality(parts) - 1) / cardinality(parts);
            loop
                picked := array(
                    select x.id
                    from unnest(parts, rooms) with ordinality as t (part_name, part_places, turn)
                    cross join lateral (
                        select y.id, row_number() over (order by y.rank, y.id) as k
                        from (
                            select w.id, w.rank from operon.workflows w
                            where w.queue = q.name and w.partition = t.part_name and w.status = 0
                                and w.ready_at is null and w.name = any(wanted_names)
                                and (w.instance is null or w.instance = any(wanted_instances))
                                and (w.pin is null or w.pin = wanted_version)
                            order by w.rank, w.id
                            limit least(t.part_places, depth)
                        ) as y
                    ) as x
                    order by x.k, t.turn
                    limit room
                );
                exit when cardinality(picked) >= room or depth >= room;
                depth := room;
            end loop;
            -- Somebody may have cancelled them meanwhile.
            picked := array(
                select o.id from unnest(picked) with ordinality as o (id, place)
                where o.id in (
                    select w.id from operon.workflows w
                    where w.id = any(picked) and w.status = 0 and w.ready_at is null
                    order by w.id
                    for no key update skip locked
                )
                order by o.place
            );
        end if;
        if cardinality(picked) > 0 then
            select w.partition into last_part from operon.workflows w where w.id = picked[cardinality(picked)];
        end if;
        if last_part <> q.served then
            update operon.queues u set served = last_part where u.name = q.name;
        end if;
        continue when cardinality(picked) = 0;

        places := places - cardinality(picked);
        return query
        with taken as (
            update operon.workflows w set
                status = 1, claim = w.claim + 1, executor = me, attempts = w.attempts + 1,
                started_at = coalesce(w.started_at, clock_timestamp())
            where w.id = any(picked)
            returning w.*
        )
        select taken.* from taken join unnest(picked) with ordinality as o (id, place) on o.id = taken.id
        order by o.place;

        -- After they have begun, by the clock: the other way round, the window would open a moment too early.
        if q.rate is not null or q.partition_rate is not null then
            insert into operon.admissions (queue, partition, at)
            select q.name, w.partition, clock_timestamp() from operon.workflows w where w.id = any(picked);
        end if;
    end loop;
end
$$;
