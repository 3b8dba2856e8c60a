-- The platform's questions about the log of one app, whose schema is {log}. Ids travel as bytes.

-- The latest calls; every filter that is null lets all pass.
-- name: log_calls
select seq, uuid_send(id) as id, function, kind, version, caller, attempt, started, duration, status, error, key,
       uuid_send(parent) as parent
from {log}.calls
where (:function::text is null or function = :function) and (:status::text is null or status = :status)
  and (:caller::text is null or caller = :caller)
  and seq < coalesce(:before::bigint, 9223372036854775807) and seq > coalesce(:after::bigint, -1)
order by seq desc limit :limit::bigint;

-- name: log_call
select seq, uuid_send(id) as id, function, kind, version, caller, attempt, started, duration, status, input, output,
       error, lines, nested, key, uuid_send(parent) as parent
from {log}.calls where id = encode(:id::bytea, 'hex')::uuid
order by status <> 'stopped', seq;

-- name: log_queued
select seq, uuid_send(id) as id, function, kind, version, caller, attempt, started, duration, status, error, key,
       uuid_send(parent) as parent
from {log}.calls where parent = encode(:id::bytea, 'hex')::uuid and step is null order by seq;

-- name: log_waiting
select uuid_send(id) as id, function from {log}.queue
where parent = encode(:id::bytea, 'hex')::uuid and step is null order by due, id;

-- Workflows that have begun and not ended, the latest first; every filter that is null lets all pass.
-- name: log_running
select uuid_send(id) as id, function, version, input, caller, key, uuid_send(parent) as parent, step, started, first,
       issued, waits, topic, acting, due, deadline, problem, status
from (
    select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
           waits, topic, acting, due, deadline, problem,
           case when state <> '' then state when acting or due <= :now::bigint then 'running' else 'waiting' end as status
    from {log}.queue
    where version is not null and (:function::text is null or function = :function)
      and (:caller::text is null or caller = :caller)
      and (:roots::integer = 0 or step is null)
      and (:before::bytea is null or id < encode(:before::bytea, 'hex')::uuid)
) as running
where :status::text is null or status = :status
order by running.id desc limit :limit::bigint;

-- One that has begun and not ended.
-- name: log_begun
select uuid_send(id) as id, function, version, input, caller, key, uuid_send(parent) as parent, step,
       coalesce(started, due) as started, first, issued, waits, topic, acting, due, deadline, problem,
       case when state <> '' then state when acting or due <= :now::bigint then 'running' else 'waiting' end as status
from {log}.queue where id = encode(:id::bytea, 'hex')::uuid and version is not null;

-- Workflows that have ended.
-- name: log_ended
select uuid_send(id) as id, function, version, input, caller, key, uuid_send(parent) as parent, step, started, duration,
       status, output, error, lines
from {log}.calls
where kind = 'workflow' and status <> 'stopped' and (:function::text is null or function = :function)
  and (:caller::text is null or caller = :caller) and (:roots::integer = 0 or step is null)
  and (:before::bytea is null or calls.id < encode(:before::bytea, 'hex')::uuid)
  and (:status::text is null or status = :status)
order by calls.id desc limit :limit::bigint;

-- name: log_end
select uuid_send(id) as id, function, kind, version, input, caller, key, uuid_send(parent) as parent, step, started,
       duration, status, output, error, lines
from {log}.calls where id = encode(:id::bytea, 'hex')::uuid and status <> 'stopped';

-- The recorded steps of a workflow; what is large is left out.
-- name: log_steps
select step, uuid_send(id) as id, function, kind, status, attempt, started, duration, error,
       case when octet_length(input) <= :most::bigint then input end as input, octet_length(input) as input_bytes,
       case when octet_length(output) <= :most then output end as output, octet_length(output) as output_bytes
from {log}.calls where parent = encode(:id::bytea, 'hex')::uuid and step > :after::bigint and status <> 'stopped'
order by step limit :limit::bigint;

-- Of these workflows, those that have begun and not ended.
-- name: log_children
select uuid_send(id) as id, function, input, coalesce(started, due) as started,
       case when state <> '' then state when acting or due <= :now::bigint then 'running' else 'waiting' end as status
from {log}.queue where id in (select value::uuid from json_array_elements_text(:ids::json));

-- name: log_published
select name, value from {log}.published where workflow = encode(:id::bytea, 'hex')::uuid order by name;

-- Messages that a workflow has not received yet.
-- name: log_messages
select topic, count(*) as messages from {log}.messages
where workflow = encode(:id::bytea, 'hex')::uuid group by topic order by topic;
