-- The platform's questions about the log of one app, whose schema is {log}. Ids travel as bytes.

-- The latest calls, by the order of their transactions; every filter that is null lets all pass. `words`: with each of
-- them a word begins in what went in, came out, or was logged. Those after some call are told once nothing can come
-- before them any more: when all transactions before theirs have ended.
-- name: log_calls
select seq, uuid_send(id) as id, function, kind, version, caller, attempt, started, duration, status, error, key,
       uuid_send(parent) as parent
from {log}.calls
where (:function::text is null or function = :function) and (:status::text is null or status = :status)
  and (:caller::text is null or caller = :caller)
  and (:since::bigint is null or started >= :since) and (:until::bigint is null or started < :until)
  and (:words::json is null or not exists (
      select from json_array_elements_text(:words) as word
      where regexp_replace(concat_ws(' ', input, output, error, lines), '\\[nt]', ' ', 'g') !~* ('(^|[^[:alnum:]])' || word)))
  and (tx, seq) < (coalesce((select c.tx from {log}.calls c where c.seq <= :before order by c.seq desc limit 1),
                            '18446744073709551615'::xid8), coalesce(:before::bigint, 9223372036854775807))
  and (tx, seq) > (coalesce((select c.tx from {log}.calls c where c.seq <= :after order by c.seq desc limit 1),
                            '0'::xid8), coalesce(:after::bigint, -1))
  and (:after::bigint is null or tx < pg_snapshot_xmin(pg_current_snapshot()))
order by tx desc, seq desc limit :limit::bigint;

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

-- Workflows that have not ended, the latest first; every filter that is null lets all pass.
-- name: log_running
select uuid_send(id) as id, function, version, input, caller, key, uuid_send(parent) as parent, step, started, first,
       issued, waits, topic, acting, due, deadline, problem, status
from (
    select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
           waits, topic, acting, due, deadline, problem,
           case when state <> '' then state when version is null then 'queued'
            when acting or due <= :now::bigint then 'running' else 'waiting' end as status
    from {log}.queue
    where epoch > 0 and (:function::text is null or function = :function)
      and (:caller::text is null or caller = :caller)
      and (:roots::integer = 0 or step is null)
      and (:before::bytea is null or id < encode(:before::bytea, 'hex')::uuid)
) as running
where :status::text is null or status = :status
order by running.id desc limit :limit::bigint;

-- One that has not ended.
-- name: log_begun
select uuid_send(id) as id, function, version, input, caller, key, uuid_send(parent) as parent, step,
       coalesce(started, due) as started, first, issued, waits, topic, acting, due, deadline, problem,
       case when state <> '' then state when version is null then 'queued'
            when acting or due <= :now::bigint then 'running' else 'waiting' end as status
from {log}.queue where id = encode(:id::bytea, 'hex')::uuid and epoch > 0;

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

-- Of these workflows, those that have not ended.
-- name: log_children
select uuid_send(id) as id, function, input, coalesce(started, due) as started,
       case when state <> '' then state when version is null then 'queued'
            when acting or due <= :now::bigint then 'running' else 'waiting' end as status
from {log}.queue where id in (select value::uuid from json_array_elements_text(:ids::json));

-- name: log_published
select name, value from {log}.published where workflow = encode(:id::bytea, 'hex')::uuid order by name;

-- Messages that a workflow has not received yet.
-- name: log_messages
select topic, count(*) as messages from {log}.messages
where workflow = encode(:id::bytea, 'hex')::uuid group by topic order by topic;

-- Workflows that ended before some time and of which more is kept than who repeats their key is told, the oldest first.
-- Of one that another started, that other one has ended too, or begun again since then.
-- name: retention_found
select uuid_send(id) as id, key from {log}.calls as ended
where kind = 'workflow' and status <> 'stopped' and id > encode(:after::bytea, 'hex')::uuid
  and id < encode(:until::bytea, 'hex')::uuid and started + duration < :before::bigint
  and (key is null or lines is distinct from :told::text or exists (
        select 1 from {log}.calls as inner_step where inner_step.parent = ended.id and inner_step.step is not null
          and inner_step.kind <> 'workflow'))
  and (step is null or not exists (
        select 1 from {log}.queue as outer_one where outer_one.id = ended.parent and outer_one.first <= ended.step))
order by ended.id limit :limit::bigint;

-- What workflows did that run, before they began again.
-- name: retention_rounds
delete from {log}.calls where seq in (
    select done.seq from {log}.queue as running join {log}.calls as done on done.parent = running.id
    where running.version is not null and running.first > 0 and done.step < running.first and done.kind <> 'workflow'
      and done.started + done.duration < :before::bigint limit :limit::bigint);

-- name: retention_mark
update {log}.calls set lines = :told::text, nested = null
where id = encode(:id::bytea, 'hex')::uuid and status <> 'stopped';

-- name: retention_steps
delete from {log}.calls where seq in (
    select seq from {log}.calls where parent = encode(:id::bytea, 'hex')::uuid and step is not null
      and kind <> 'workflow' limit :limit::bigint);

-- name: retention_published
delete from {log}.published where workflow = encode(:id::bytea, 'hex')::uuid;

-- name: retention_stopped
delete from {log}.calls where id = encode(:id::bytea, 'hex')::uuid and status = 'stopped';

-- name: retention_record
delete from {log}.calls where id = encode(:id::bytea, 'hex')::uuid and key is null;

-- What waits in each queue, and how much of it is due.
-- name: log_queues
select queue, count(*) as calls, count(*) filter (where due <= :now::bigint) as due,
       min(due) filter (where due <= :now::bigint) as oldest
from {log}.queue where version is null group by queue;

-- How many workflows of each queue have begun and not ended.
-- name: log_queues_begun
select queue, count(*) as calls from {log}.queue where version is not null and queue <> '' group by queue;

-- name: log_queues_paused
select queue from {log}.paused;
