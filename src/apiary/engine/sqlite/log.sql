-- The platform's questions about the log of one app, asked beside the engine that writes it.

-- The latest calls; every filter that is null lets all pass.
-- name: log_calls
select * from apiary_calls
where (:function is null or function = :function) and (:status is null or status = :status)
  and (:caller is null or caller = :caller)
  and seq < coalesce(:before, 9223372036854775807) and seq > coalesce(:after, -1)
order by seq desc limit :limit;

-- name: log_call
select * from apiary_calls where id = :id and status <> 'stopped'
union all
select * from apiary_calls where id = :id and status = 'stopped'
order by seq;

-- name: log_queued
select * from apiary_calls where parent = :id and step is null order by seq;

-- name: log_waiting
select id, function from apiary_queue where parent = :id and step is null order by due, id;

-- Workflows that have begun and not ended, the latest first; every filter that is null lets all pass.
-- name: log_running
select * from (
    select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
           waits, topic, acting, due, deadline, problem,
           case when state <> '' then state when acting = 1 or due <= :now then 'running' else 'waiting' end as status
    from apiary_queue
    where version is not null and (:function is null or function = :function)
      and (:caller is null or caller = :caller) and (:roots = 0 or step is null)
      and (:before is null or id < :before)
) where :status is null or status = :status
order by id desc limit :limit;

-- One that has begun and not ended.
-- name: log_begun
select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
       waits, topic, acting, due, deadline, problem,
       case when state <> '' then state when acting = 1 or due <= :now then 'running' else 'waiting' end as status
from apiary_queue where id = :id and version is not null;

-- Workflows that have ended.
-- name: log_ended
select id, function, version, input, caller, key, parent, step, started, duration, status, output, error, lines
from apiary_calls
where kind = 'workflow' and status <> 'stopped' and (:function is null or function = :function)
  and (:caller is null or caller = :caller) and (:roots = 0 or step is null)
  and (:before is null or id < :before) and (:status is null or status = :status)
order by id desc limit :limit;

-- name: log_end
select id, function, kind, version, input, caller, key, parent, step, started, duration, status, output, error, lines
from apiary_calls where id = :id and status <> 'stopped';

-- The recorded steps of a workflow; what is large is left out.
-- name: log_steps
select step, id, function, kind, status, attempt, started, duration, error,
       case when octet_length(input) <= :most then input end as input, octet_length(input) as input_bytes,
       case when octet_length(output) <= :most then output end as output, octet_length(output) as output_bytes
from apiary_calls where parent = :id and step > :after and status <> 'stopped'
order by step limit :limit;

-- Of these workflows, those that have begun and not ended.
-- name: log_children
select id, function, input, coalesce(started, due) as started,
       case when state <> '' then state when acting = 1 or due <= :now then 'running' else 'waiting' end as status
from apiary_queue where id in (select unhex(value) from json_each(:ids));

-- name: log_published
select name, value from apiary_published where workflow = :id order by name;

-- Messages that a workflow has not received yet.
-- name: log_messages
select topic, count(*) as messages from apiary_messages where workflow = :id group by topic order by topic;
