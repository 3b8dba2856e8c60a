-- Workflows. A step is a call whose `parent` is its workflow; a workflow that has begun and not ended is a row of the
-- queue that has a version. Its columns are those of `Instance` (runtime/session.py).
alter table {log}.calls add column step bigint;

-- Exactly once: a step of a workflow has one outcome.
create unique index calls_step on {log}.calls (parent, step) where step is not null and status <> 'stopped';

-- The workflows that have ended, for those who list them.
create index calls_workflows on {log}.calls (id) where kind = 'workflow' and status <> 'stopped';

alter table {log}.queue
    add column version text,
    add column roles text,
    add column key text,
    add column step bigint,
    add column started bigint,
    add column epoch bigint not null default 0,
    add column first bigint not null default 0,
    add column issued bigint not null default 0,
    add column waits bigint,
    add column acting boolean not null default false,
    add column owner uuid,
    add column deadline bigint not null default 9223372036854775807,
    add column state text not null default '',
    add column problem text,
    add column topic text;

-- Most updates of a row change what is not indexed.
alter table {log}.queue set (fillfactor = 70);

-- An idempotency key begins one workflow.
create unique index queue_key on {log}.queue (key) where key is not null;

create index queue_acting on {log}.queue (id) where acting;

-- Messages that a workflow has not received yet. A sender leaves each once.
create table {log}.messages (
    seq bigint generated always as identity primary key,
    id uuid not null unique,
    workflow uuid not null,
    topic text not null,
    value text not null
);

create index messages_topic on {log}.messages (workflow, topic, seq);

-- What workflows let everybody read.
create table {log}.published (
    workflow uuid not null,
    name text not null,
    value text not null,
    primary key (workflow, name)
);

-- The host to which this session belongs; none, where an app is open in a process of its own.
create function {log}.me() returns uuid
language sql stable set search_path = pg_catalog, pg_temp
as $$ select substring(current_setting('application_name') from '^apiary host ([0-9a-f-]{36})$')::uuid $$;

-- The record of a call, by its id or, failing that, by its idempotency key.
drop function {log}.find(uuid, text);
create function {log}.find(wanted uuid, wanted_key text)
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
    limit 1
$$;

create function {log}.find_all(wanted uuid[])
returns table (id uuid, function text, kind text, version text, caller text, attempt integer, started bigint,
               duration bigint, status text, input text, output text, error text, lines text, nested text,
               parent uuid, key text, step bigint)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select c.id, c.function, c.kind, c.version, c.caller, c.attempt, c.started, c.duration, c.status, c.input,
           c.output, c.error, c.lines, c.nested, c.parent, c.key, c.step
    from {log}.calls c where c.id = any (wanted) and c.status <> 'stopped'
$$;

-- A row of the queue as the platform takes it. `deaths`: how often its process died while it ran.
create type {log}.queued_call as (
    id uuid, function text, input text, caller text, parent uuid, due bigint, attempts integer, deaths bigint,
    version text, roles text, step bigint, epoch bigint
);

-- What waits; workflows of one version only, and those that are due until some time. Or one call.
drop function {log}.queued(integer, uuid);
create function {log}.queued(most integer, wanted uuid, of_version text, until bigint, plain boolean)
returns setof {log}.queued_call
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, case q.attempts when 0 then 0 else
           (select count(*) from {log}.calls c
            where c.id = q.id and c.status = 'stopped' and c.error::json ->> 'code' = 'host_crashed') end,
           q.version, q.roles, q.step, q.epoch
    from {log}.queue q
    where case when wanted is null
          then (plain and q.version is null) or (q.version = of_version and q.due <= until and q.state <> 'blocked')
          else q.id = wanted end
    order by q.due, q.id limit most
$$;

create function {log}.versions_due(of_version text, until bigint) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select distinct q.version from {log}.queue q
    where q.version <> of_version and q.due <= until and q.state <> 'blocked'
$$;

-- The workflow of this id or, failing that, this idempotency key; nobody else goes on with it until the transaction ends.
create function {log}.instance(wanted uuid, wanted_key text)
returns table (id uuid, function text, version text, input text, caller text, roles text, key text, parent uuid,
               step bigint, started bigint, epoch bigint, first bigint, issued bigint, waits bigint, acting boolean,
               due bigint, deadline bigint, state text, problem text, topic text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select q.id, q.function, q.version, q.input, q.caller, q.roles, q.key, q.parent, q.step,
               coalesce(q.started, q.due), q.epoch, q.first, q.issued, q.waits, q.acting, q.due, q.deadline, q.state,
               q.problem, q.topic
        from {log}.queue q where q.id = wanted and q.version is not null for update;
    if not found and wanted_key is not null then
        return query
            select q.id, q.function, q.version, q.input, q.caller, q.roles, q.key, q.parent, q.step,
                   coalesce(q.started, q.due), q.epoch, q.first, q.issued, q.waits, q.acting, q.due, q.deadline,
                   q.state, q.problem, q.topic
            from {log}.queue q where q.key = wanted_key and q.version is not null for update;
    end if;
end
$$;

create function {log}.update_instance(wanted uuid, its_input text, its_started bigint, its_first bigint,
                                      its_issued bigint, its_waits bigint, its_acting integer, its_due bigint,
                                      its_deadline bigint, its_state text, its_problem text,
                                      its_topic text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue
    set input = its_input, started = its_started, first = its_first, issued = its_issued, waits = its_waits,
        acting = its_acting = 1, owner = case when its_acting = 1 then {log}.me() end, due = its_due,
        deadline = its_deadline, state = its_state, problem = its_problem, topic = its_topic
    where id = wanted
$$;

create function {log}.drop_instance(wanted uuid) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    delete from {log}.queue where id = wanted;
    delete from {log}.messages where workflow = wanted;
$$;

-- Those for which a process that is gone was running actions, of any version; whoever runs the queue does so again. What
-- a process left that had no identity is known by its version.
create function {log}.adopt(of_version text, at bigint, others uuid[]) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue set epoch = epoch + 1, due = at, acting = false, owner = null
    where acting and id <> all (others)
      and case when owner is null or owner = {log}.me() then version = of_version else not apiary.counts(owner) end
$$;

create function {log}.steps(its_workflow uuid, at_least bigint, below bigint)
returns table (number bigint, id uuid, kind text, function text, input text, output text, error text)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select c.step, c.id, c.kind, c.function, c.input, c.output, c.error from {log}.calls c
    where c.parent = its_workflow and c.step >= at_least and c.step < below and c.step is not null
      and c.status <> 'stopped' order by c.step
$$;

create function {log}.take_message(its_workflow uuid, its_topic text) returns setof text
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    delete from {log}.messages where seq = (
        select m.seq from {log}.messages m where m.workflow = its_workflow and m.topic = its_topic
        order by m.seq limit 1
    ) returning value
$$;

-- Lets a workflow go on that waits for this step, or for messages (-1), or for whatever it waits for (null).
create function {log}.wake(wanted uuid, at bigint, what bigint) returns setof {log}.queued_call
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue q set due = at
    where q.id = wanted and q.version is not null and q.due > at and q.state <> 'blocked'
      and (what is null or q.waits = what)
    returning q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, 0::bigint, q.version, q.roles, q.step,
              q.epoch
$$;

create function {log}.send(wanted uuid, its_topic text, its_value text, its_id uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform from {log}.queue q where q.id = wanted and q.version is not null;
    if not found then
        return false;
    end if;
    insert into {log}.messages (id, workflow, topic, value) values (its_id, wanted, its_topic, its_value)
    on conflict do nothing;
    return true;
end
$$;

create function {log}.publish(its_workflow uuid, its_name text, its_value text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into {log}.published (workflow, name, value) values (its_workflow, its_name, its_value)
    on conflict (workflow, name) do update set value = excluded.value
$$;

-- Until when (seconds since 1970) all times of a workflow that begins by the clock are done.
create table {log}.schedules (
    function text primary key,
    done double precision not null
);

create function {log}.scheduled(its_function text, until double precision, at double precision) returns double precision
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into {log}.schedules as s (function, done) values (its_function, coalesce(until, at))
    on conflict (function) do update set done = greatest(s.done, coalesce(until, s.done)) returning s.done
$$;

revoke all on all functions in schema {log} from public;
grant usage on type {log}.queued_call to {role};
grant execute on all functions in schema {log} to {role};
