-- The key of a workflow that has not ended.

-- The record of a call, by its id or, failing that, by its idempotency key. A workflow that was begun with it, and has
-- not ended, is found as `open`, without an outcome.
create or replace function {log}.find(wanted uuid, wanted_key text)
returns table (id uuid, function text, kind text, version text, caller text, attempt integer, started bigint,
               duration bigint, status text, input text, output text, error text, lines text, nested text,
               parent uuid, key text, step bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    (select c.id, c.function, c.kind, c.version, c.caller, c.attempt, c.started, c.duration, c.status, c.input,
            c.output, c.error, c.lines, c.nested, c.parent, c.key, c.step
     from {log}.calls c where c.id = wanted and c.status <> 'stopped')
    union all
    (select c.id, c.function, c.kind, c.version, c.caller, c.attempt, c.started, c.duration, c.status, c.input,
            c.output, c.error, c.lines, c.nested, c.parent, c.key, c.step
     from {log}.calls c where c.key = wanted_key)
    union all
    (select q.id, q.function, 'workflow', coalesce(q.version, ''), q.caller, 1, coalesce(q.started, q.due), 0, 'open',
            q.input, null, null, null, null, q.parent, q.key, q.step
     from {log}.queue q where q.key = wanted_key)
    limit 1
$$;
