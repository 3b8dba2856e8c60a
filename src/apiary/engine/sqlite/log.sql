-- The platform's questions about the log of one app, asked beside the engine that writes it.

-- The latest calls; every filter that is null lets all pass.
-- name: log_calls
select * from apiary_calls
where (:function is null or function = :function) and (:status is null or status = :status)
  and (:caller is null or caller = :caller)
  and (:since is null or started >= :since) and (:until is null or started < :until)
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

-- Workflows that have not ended, the latest first; every filter that is null lets all pass.
-- name: log_running
select * from (
    select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
           waits, topic, acting, due, deadline, problem,
           case when state <> '' then state when version is null then 'queued'
            when acting = 1 or due <= :now then 'running' else 'waiting' end as status
    from apiary_queue
    where epoch > 0 and (:function is null or function = :function)
      and (:caller is null or caller = :caller) and (:roots = 0 or step is null)
      and (:before is null or id < :before)
) where :status is null or status = :status
order by id desc limit :limit;

-- One that has not ended.
-- name: log_begun
select id, function, version, input, caller, key, parent, step, coalesce(started, due) as started, first, issued,
       waits, topic, acting, due, deadline, problem,
       case when state <> '' then state when version is null then 'queued'
            when acting = 1 or due <= :now then 'running' else 'waiting' end as status
from apiary_queue where id = :id and epoch > 0;

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

-- Of these workflows, those that have not ended.
-- name: log_children
select id, function, input, coalesce(started, due) as started,
       case when state <> '' then state when version is null then 'queued'
            when acting = 1 or due <= :now then 'running' else 'waiting' end as status
from apiary_queue where id in (select unhex(value) from json_each(:ids));

-- name: log_published
select name, value from apiary_published where workflow = :id order by name;

-- Messages that a workflow has not received yet.
-- name: log_messages
select topic, count(*) as messages from apiary_messages where workflow = :id group by topic order by topic;

-- Workflows that ended before some time and of which more is kept than who repeats their key is told, the oldest first.
-- Of one that another started, that other one has ended too, or begun again since then. The last row of all stays: its
-- number would be given again.
-- name: retention_found
select id, key from apiary_calls as ended
where kind = 'workflow' and status <> 'stopped' and id > :after and id < :until and started + duration < :before
  and seq < (select max(seq) from apiary_calls)
  and (key is null or lines is not :told or exists (
        select 1 from apiary_calls as inner_step where inner_step.parent = ended.id and inner_step.step is not null
          and inner_step.kind <> 'workflow'))
  and (step is null or not exists (
        select 1 from apiary_queue as outer_one where outer_one.id = ended.parent and outer_one.first <= ended.step))
order by id limit :limit;

-- What workflows did that run, before they began again.
-- name: retention_rounds
delete from apiary_calls where seq in (
    select done.seq from apiary_queue as running join apiary_calls as done on done.parent = running.id
    where running.version is not null and running.first > 0 and done.step < running.first and done.kind <> 'workflow'
      and done.started + done.duration < :before and done.seq < (select max(seq) from apiary_calls) limit :limit);

-- name: retention_mark
update apiary_calls set lines = :told, nested = null where id = :id and status <> 'stopped';

-- name: retention_steps
delete from apiary_calls where seq in (
    select seq from apiary_calls where parent = :id and step is not null and kind <> 'workflow'
      and seq < (select max(seq) from apiary_calls) limit :limit);

-- name: retention_published
delete from apiary_published where workflow = :id;

-- name: retention_stopped
delete from apiary_calls where id = :id and status = 'stopped';

-- name: retention_record
delete from apiary_calls where id = :id and key is null;

-- What waits in each queue, and how much of it is due.
-- name: log_queues
select queue, count(*) as calls, sum(due <= :now) as due, min(due) filter (where due <= :now) as oldest
from apiary_queue where version is null group by queue;

-- How many workflows of each queue have begun and not ended.
-- name: log_queues_begun
select queue, count(*) as calls from apiary_queue where version is not null and queue <> '' group by queue;

-- name: log_queues_paused
select queue from apiary_paused;
