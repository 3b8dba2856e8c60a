-- Queues that an app declares. A call that waits in one has its name; of the calls with one `share`, each waits for those
-- before it. A workflow (its `epoch` is not 0) that waits for its turn has no version: it gets that when it begins.
alter table {log}.queue
    add column queue text collate "C" not null default '',
    add column share text collate "C" not null default '',
    add column priority integer not null default 0,
    add column unique_key text collate "C",
    add column delayed integer not null default 0;

comment on column {log}.queue.delayed is 'Its time was given. What was not delayed is due, whatever the clock says.';

drop index {log}.queue_due;

create index queue_due on {log}.queue (due, id) where version is not null;

create index queue_waiting on {log}.queue (queue, share, priority, delayed, due, id) where version is null;

-- The workflows of queues that have begun.
create index queue_begun on {log}.queue (queue, id) where version is not null and queue <> '';

-- While a call of a function waits under such a name, there is no other one.
create unique index queue_unique on {log}.queue (function, unique_key) where unique_key is not null;

-- The queues from which nothing is begun.
create table {log}.paused (
    queue text primary key
);

-- How many calls of a queue with a rate were let begin when (seconds since 1970), as long as that counts.
create table {log}.admitted (
    queue text not null,
    at double precision not null,
    calls integer not null
);

create index admitted_at on {log}.admitted (queue, at);

alter type {log}.queued_call
    add attribute queue text,
    add attribute share text,
    add attribute priority integer,
    add attribute unique_key text,
    add attribute delayed integer;

drop function {log}.queued(integer, uuid, text, bigint, boolean);

create function {log}.queued_call(wanted uuid) returns setof {log}.queued_call
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, case q.attempts when 0 then 0 else
           (select count(*) from {log}.calls c
            where c.id = q.id and c.status = 'stopped' and c.error::json ->> 'code' = 'host_crashed') end,
           q.version, q.roles, q.step, q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
    from {log}.queue q where q.id = wanted
$$;

-- The workflows that have begun, of one version, and are due until some time.
create function {log}.workflows_due(of_version text, until bigint, most integer) returns setof {log}.queued_call
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    select q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, 0::bigint, q.version, q.roles, q.step,
           q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
    from {log}.queue q
    where q.version = of_version and q.due <= until and q.state <> 'blocked' order by q.due, q.id limit most
$$;

-- What waits in queues, or in one of them: of each share and each priority the same number of calls, those that are due
-- first. The shares are found one after another in the index, whatever the number of their calls.
create function {log}.waiting(wanted text, until bigint, most integer) returns setof {log}.queued_call
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$
    with recursive shares as (
        (select q.queue, q.share, q.priority, q.delayed, q.due from {log}.queue q
         where q.version is null and q.queue >= coalesce(wanted, '')
         order by q.queue, q.share, q.priority, q.delayed, q.due, q.id limit 1)
        union all
        select next.* from shares s, lateral (
            select q.queue, q.share, q.priority, q.delayed, q.due from {log}.queue q
            where q.version is null
              and (q.queue, q.share, q.priority, q.delayed) > (s.queue, s.share, s.priority, s.delayed)
            order by q.queue, q.share, q.priority, q.delayed, q.due, q.id limit 1
        ) as next
        where wanted is null or s.queue = wanted
    ), due as (
        select s.queue, s.share, s.priority, s.delayed, greatest(1, most / count(*) over (partition by s.queue)) as most_of_it
        from (select * from shares
              where (wanted is null or queue = wanted) and (delayed = 0 or shares.due <= until)
              order by shares.due limit most) as s
    )
    select q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, case q.attempts when 0 then 0 else
           (select count(*) from {log}.calls c
            where c.id = q.id and c.status = 'stopped' and c.error::json ->> 'code' = 'host_crashed') end,
           q.version, q.roles, q.step, q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
    from due d, lateral (
        select * from {log}.queue w
        where w.version is null and w.queue = d.queue and w.share = d.share and w.priority = d.priority
          and w.delayed = d.delayed and w.due <= case d.delayed when 0 then 9223372036854775807 else until end
        order by w.due, w.id limit d.most_of_it
    ) as q
$$;

create function {log}.begun() returns table (queue text, id uuid)
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$ select q.queue, q.id from {log}.queue q where q.version is not null and q.queue <> '' $$;

create function {log}.paused() returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp
as $$ select p.queue from {log}.paused p $$;

create function {log}.pause(its_queue text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ insert into {log}.paused (queue) values (its_queue) on conflict do nothing $$;

create function {log}.unpause(its_queue text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$ delete from {log}.paused where queue = its_queue $$;

-- Puts a call into the queue, unless one of its function waits under the same name: then that stays, and gets the
-- arguments and the time of this one where that is `quiet`.
create function {log}.enqueue_unique(
    its_id uuid, its_function text, its_input text, its_caller text, its_parent uuid, its_due bigint, its_version text,
    its_roles text, its_step bigint, its_epoch bigint, its_queue text, its_share text, its_priority integer,
    its_unique_key text, its_delayed integer, its_key text, quiet integer
) returns setof {log}.queued_call
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    insert into {log}.queue as q (id, function, input, caller, parent, due, version, roles, step, epoch, queue, share,
                                  priority, unique_key, delayed, key)
    values (its_id, its_function, its_input, its_caller, its_parent, its_due, its_version, its_roles, its_step, its_epoch,
            its_queue, its_share, its_priority, its_unique_key, its_delayed, its_key)
    on conflict (function, unique_key) where unique_key is not null do update set
        input = case quiet when 1 then excluded.input else q.input end,
        due = case quiet when 1 then excluded.due else q.due end
    returning q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, 0::bigint, q.version, q.roles, q.step,
              q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
$$;

-- A call begins whose arguments, and whose time, may have changed while it waited. From now on, another one may wait.
create function {log}.claim(wanted uuid, at bigint) returns setof {log}.queued_call
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue q set unique_key = case when q.delayed = 1 and q.due > at then q.unique_key end where q.id = wanted
    returning q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, 0::bigint, q.version, q.roles, q.step,
              q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
$$;

-- Lets so many calls of a queue begin, of which `most` may begin within so many seconds; if none may, when one may.
create function {log}.admit(its_queue text, wanted integer, most integer, seconds double precision)
returns table (admitted integer, wait double precision)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
declare
    now double precision := extract(epoch from clock_timestamp());
    fresh integer;
begin
    delete from {log}.admitted a where a.queue = its_queue and (a.at <= now - seconds or a.at > now + seconds);
    fresh := least(wanted, most - (select coalesce(sum(a.calls), 0) from {log}.admitted a where a.queue = its_queue));
    if fresh > 0 then
        insert into {log}.admitted (queue, at, calls) values (its_queue, now, fresh);
        return query select fresh, 0.0::double precision;
    else
        return query select 0, min(a.at) + seconds - now from {log}.admitted a where a.queue = its_queue;
    end if;
end
$$;

-- The workflow of this id or, failing that, this idempotency key; nobody else goes on with it until the transaction ends.
create or replace function {log}.instance(wanted uuid, wanted_key text)
returns table (id uuid, function text, version text, input text, caller text, roles text, key text, parent uuid,
               step bigint, started bigint, epoch bigint, first bigint, issued bigint, waits bigint, acting boolean,
               due bigint, deadline bigint, state text, problem text, topic text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    return query
        select q.id, q.function, coalesce(q.version, ''), q.input, q.caller, q.roles, q.key, q.parent, q.step,
               coalesce(q.started, q.due), q.epoch, q.first, q.issued, q.waits, q.acting,
               case when q.version is null and q.delayed = 0 then 0 else q.due end, q.deadline, q.state,
               q.problem, q.topic
        from {log}.queue q where q.id = wanted and q.epoch > 0 for update;
    if not found and wanted_key is not null then
        return query
            select q.id, q.function, coalesce(q.version, ''), q.input, q.caller, q.roles, q.key, q.parent, q.step,
                   coalesce(q.started, q.due), q.epoch, q.first, q.issued, q.waits, q.acting,
               case when q.version is null and q.delayed = 0 then 0 else q.due end, q.deadline,
                   q.state, q.problem, q.topic
            from {log}.queue q where q.key = wanted_key and q.epoch > 0 for update;
    end if;
end
$$;

drop function {log}.update_instance(uuid, text, bigint, bigint, bigint, bigint, integer, bigint, bigint, text, text, text);

create function {log}.update_instance(wanted uuid, its_version text, its_input text, its_started bigint,
                                      its_first bigint, its_issued bigint, its_waits bigint, its_acting integer,
                                      its_due bigint, its_deadline bigint, its_state text, its_problem text,
                                      its_topic text) returns void
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue
    set version = its_version, unique_key = null, input = its_input, started = its_started, first = its_first,
        issued = its_issued, waits = its_waits, acting = its_acting = 1,
        owner = case when its_acting = 1 then {log}.me() end, due = its_due, deadline = its_deadline, state = its_state,
        problem = its_problem, topic = its_topic
    where id = wanted
$$;

-- Lets a workflow go on that waits for this step, or for messages (-1), or for whatever it waits for (null).
create or replace function {log}.wake(wanted uuid, at bigint, what bigint) returns setof {log}.queued_call
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    update {log}.queue q set due = at
    where q.id = wanted and q.version is not null and q.due > at and q.state <> 'blocked'
      and (what is null or q.waits = what)
    returning q.id, q.function, q.input, q.caller, q.parent, q.due, q.attempts, 0::bigint, q.version, q.roles, q.step,
              q.epoch, q.queue, q.share, q.priority, q.unique_key,
           q.delayed
$$;

create or replace function {log}.send(wanted uuid, its_topic text, its_value text, its_id uuid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
as $$
begin
    perform from {log}.queue q where q.id = wanted and q.epoch > 0;
    if not found then
        return false;
    end if;
    insert into {log}.messages (id, workflow, topic, value) values (its_id, wanted, its_topic, its_value)
    on conflict do nothing;
    return true;
end
$$;

revoke all on all functions in schema {log} from public;
grant execute on all functions in schema {log} to {role};
