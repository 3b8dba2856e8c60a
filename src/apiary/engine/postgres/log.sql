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

-- name: log_children
select seq, uuid_send(id) as id, function, kind, version, caller, attempt, started, duration, status, error, key,
       uuid_send(parent) as parent
from {log}.calls where parent = encode(:id::bytea, 'hex')::uuid order by seq;

-- name: log_waiting
select uuid_send(id) as id, function from {log}.queue where parent = encode(:id::bytea, 'hex')::uuid order by due, id;
