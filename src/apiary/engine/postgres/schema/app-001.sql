-- The log and the queue of one app: {log} is their schema, {role} the role as which the app's functions run.
-- Times in microseconds since 1970 (UTC). `seq` is the order in which calls were written.
create table {log}.calls (
    seq bigint generated always as identity primary key,
    id uuid not null,
    function text not null,
    kind text not null,
    version text not null,
    caller text not null,
    attempt integer not null,
    started bigint not null,
    duration bigint not null,
    status text not null,
    input text not null,
    output text,
    error text,
    lines text,
    nested text,
    parent uuid,
    key text
);

-- Exactly once: a call has one outcome. An attempt that the platform stopped is none, so it may be followed by another.
create unique index calls_id on {log}.calls (id) where status <> 'stopped';

create index calls_stopped on {log}.calls (id) where status = 'stopped';

-- Exactly once: an idempotency key has one outcome, for ever.
create unique index calls_key on {log}.calls (key) where key is not null;

create index calls_parent on {log}.calls (parent) where parent is not null;

-- Calls that a transaction put here by its commit. A row leaves in the transaction that records its outcome.
create table {log}.queue (
    id uuid primary key,
    function text not null,
    input text not null,
    caller text not null,
    parent uuid,
    due bigint not null,
    attempts integer not null default 0
);

create index queue_due on {log}.queue (due, id);

-- The app's own migrations that were applied here.
create table {log}.migrations (
    name text primary key,
    checksum text not null,
    version text not null,
    applied bigint not null
);

-- The record of a call, by its id or, failing that, by its idempotency key.
create function {log}.find(wanted uuid, wanted_key text)
returns table (id uuid, function text, kind text, version text, caller text, attempt integer, started bigint,
               duration bigint, status text, input text, output text, error text, lines text, nested text,
               parent uuid, key text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    (select c.id, c.function, c.kind, c.version, c.caller, c.attempt, c.started, c.duration, c.status, c.input,
            c.output, c.error, c.lines, c.nested, c.parent, c.key
     from {log}.calls c where c.id = wanted and c.status <> 'stopped')
    union all
    (select c.id, c.function, c.kind, c.version, c.caller, c.attempt, c.started, c.duration, c.status, c.input,
            c.output, c.error, c.lines, c.nested, c.parent, c.key
     from {log}.calls c where c.key = wanted_key)
    limit 1
$$;

create function {log}.dequeue(wanted uuid) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ delete from {log}.queue where id = wanted $$;

create function {log}.count_attempt(wanted uuid, attempt integer) returns void
language sql security definer set search_path = pg_catalog, pg_temp
as $$ update {log}.queue set attempts = attempt where id = wanted $$;

-- The calls that wait, or one of them. `deaths`: how often its process died while it ran.
create function {log}.queued(most integer, wanted uuid)
returns table (id uuid, function text, input text, caller text, parent uuid, due bigint, attempts integer, deaths bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, case q.attempts when 0 then 0 else
           (select count(*) from {log}.calls c
            where c.id = q.id and c.status = 'stopped' and c.error::json ->> 'code' = 'host_crashed') end
    from {log}.queue q where wanted is null or q.id = wanted
    order by q.due, q.id limit most
$$;

revoke all on all functions in schema {log} from public;
grant usage on schema {log} to {role};
grant insert on {log}.calls, {log}.queue to {role};
grant select, insert on {log}.migrations to {role};
grant execute on all functions in schema {log} to {role};
