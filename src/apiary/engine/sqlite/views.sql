-- What is asked about effects, in the file beside the app's own (`expansion.sql`), to which that is attached as `app`.
-- Its views are the same on every engine. Times in microseconds since 1970 (UTC), ids as the API has them.

-- name: attach
attach ? as app;

-- name: view_calls
create temp view calls as
select seq, lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
             substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) as call,
       function, kind, version, caller, attempt, started, duration, status, input, output, error, lines, nested,
       iif(parent is null, null, lower(substr(hex(parent), 1, 8) || '-' || substr(hex(parent), 9, 4) || '-' || substr(hex(parent), 13, 4) || '-' ||
             substr(hex(parent), 17, 4) || '-' || substr(hex(parent), 21))) as parent,
       step, key as idempotency_key, nullif(left_out, 0) as left_out
from app.apiary_calls as calls left join main.sources as sources on sources.call = calls.seq;

-- The rows that calls and migrations wrote, in their order: a row whose key changed went, and another one came.
-- name: view_writes
create temp view writes as
select writes.effect as effect, number, table_name, writes.key, operation, before, after, sources.call as seq,
       iif(id is null, null, lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
             substr(hex(id), 17, 4) || '-' || substr(hex(id), 21))) as call,
       coalesce(calls.function, sources.migration) as function, coalesce(calls.kind, 'migration') as kind,
       calls.caller as caller, coalesce(started, applied) as at
from main.writes as writes
join main.sources as sources using (effect)
left join app.apiary_calls as calls on calls.seq = sources.call
left join app.apiary_migrations as migrations on migrations.name = sources.migration;

-- The rows that calls read. Without a `key`, `row` is missing too: how many rows of the table, and which, is not known.
-- name: view_reads
create temp view reads as
select reads.effect as effect, number, place, table_name, reads.key as key, row, sql as statement, parameters,
       sources.call as seq, lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
             substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) as call,
       function, kind, caller, started as at
from main.reads as reads
join main.statements as statements using (effect, number)
join main.texts as texts using (term)
join main.sources as sources using (effect)
join app.apiary_calls as calls on calls.seq = sources.call;

-- The statements that calls ran, with all that they gave.
-- name: view_statements
create temp view statements as
select statements.effect as effect, number, sql as statement, parameters, rows, count, statements.error as error, sources.call as seq,
       lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-' ||
             substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) as call,
       function, kind, caller, started as at
from main.statements as statements
join main.texts as texts using (term)
join main.sources as sources using (effect)
join app.apiary_calls as calls on calls.seq = sources.call;

-- name: read_only
pragma query_only = on;

-- All versions of a row, the first first. A `key` may have been written in several forms: each is asked for.
-- name: log_history
select effect, number, at, call, function, kind, caller, operation, before, after from writes
where table_name = :table and key = :key order by effect, number limit :limit;

-- Who read a row since some time, the latest first; without a `key`, who ran a statement of which is not known which
-- rows it read.
-- name: log_readers
select effect, number, at, call, function, kind, caller, statement, parameters, key is not null as certain, row
from reads where table_name = :table and key is :key and at >= :since
order by effect desc, number desc, place desc limit :limit;

-- The version of a row that was the latest at some time.
-- name: log_as_of
select effect, number, at, call, writes.function, writes.kind, writes.caller, operation, after as row
from writes left join app.apiary_calls as ends on ends.seq = writes.seq
where table_name = :table and writes.key = :key and at + coalesce(duration, 0) <= :at
order by effect desc, number desc limit 1;

-- A call and those that it began, generation by generation; what is large is left out.
-- name: log_tree
with recursive tree (id, depth) as (
    values (:id, 0)
    union all
    select calls.id, depth + 1 from tree join app.apiary_calls as calls on calls.parent = tree.id
    where calls.status <> 'stopped' and depth < :depth
    limit :limit
)
select seq, calls.id as id, parent, step, function, kind, status, caller, attempt, started, duration, error,
       case when octet_length(input) <= :most then input end as input, octet_length(input) as input_bytes,
       case when octet_length(output) <= :most then output end as output, octet_length(output) as output_bytes
from tree join app.apiary_calls as calls on calls.id = tree.id and calls.status <> 'stopped';

-- name: log_written
select seq, table_name, key, operation, before, after from writes
where seq in (select value from json_each(:calls)) order by effect, number limit :limit;

-- name: log_read
select seq, effect, number, table_name, key, row, statement, parameters from reads
where seq in (select value from json_each(:calls)) order by effect, number, place limit :limit;

-- All statements of a call, in their order, with what it takes to give their rows again.
-- name: log_statements
select sql as statement, columns, types, parameters, rows, count, error
from main.sources as sources
join main.statements as statements using (effect)
join main.texts as texts using (term)
where sources.call = :seq order by number;

-- The random bytes that a call drew, in their order.
-- name: log_drawn
select lower(hex(bytes)) as bytes from main.sources as sources join main.drawn as drawn using (effect)
where sources.call = :seq order by number;

-- How much of what a call did is not known.
-- name: log_left_out
select left_out from main.sources where call = :seq;

-- name: log_call_by_id
select seq, id, function, kind, caller, status, started from app.apiary_calls where id = :id and status <> 'stopped';

-- name: log_calls_by_seq
select seq, id, function, kind, caller, status, started from app.apiary_calls
where seq in (select value from json_each(:calls)) order by seq;

-- The calls that wrote a row, the first first.
-- name: log_writers
select calls.seq as seq, id, function, kind, caller, status, started
from (
    select distinct effect from main.writes
    where table_name = :table and key in (select value from json_each(:keys)) order by effect limit :limit
) as written
join main.sources as sources using (effect)
join app.apiary_calls as calls on calls.seq = sources.call;

-- Who read what some calls wrote (only to one row, where one is named): from that on until the row was written again.
-- The record of a query may come `late` effects after that. A `key` that is null stands for rows that are not known.
-- name: log_read_from
with written as materialized (
    select sources.call as seq, writes.effect as effect, writes.table_name as table_name, writes.key as key,
           (select min(later.effect) from main.writes as later
            where later.table_name = writes.table_name and later.key = writes.key and later.effect > writes.effect) as until
    from main.sources as sources join main.writes as writes using (effect)
    where sources.call in (select value from json_each(:calls))
      and (:table is null or table_name = :table and key in (select value from json_each(:keys)))
      and table_name is not null
    group by writes.effect, writes.table_name, writes.key
), sought as (
    select *, key as look_for from written union select *, null from written
)
select distinct written.seq as from_seq, readers.seq as to_seq, 'read' as how, written.table_name as table_name,
       written.key as key, reads.key is not null as certain
from sought as written
cross join main.reads as reads on reads.table_name = written.table_name and reads.key is written.look_for
                               and reads.effect > written.effect
                               and reads.effect <= coalesce(written.until + :late, 9223372036854775807)
join main.sources as sources on sources.effect = reads.effect
join app.apiary_calls as readers on readers.seq = sources.call
where coalesce(reads.effect <= written.until, true) or (
    readers.kind = 'query' and readers.started <= (
        select writers.started + writers.duration
        from main.sources as later join app.apiary_calls as writers on writers.seq = later.call
        where later.effect = written.until))
limit :limit;

-- What some calls began, and of those that are steps, the later ones of the same workflow.
-- name: log_came_of
select calls.seq as from_seq, began.seq as to_seq, 'began' as how, null as table_name, null as key, true as certain
from app.apiary_calls as calls join app.apiary_calls as began on began.parent = calls.id
where calls.seq in (select value from json_each(:calls)) and began.status <> 'stopped'
union all
select calls.seq, later.seq, 'then', null, null, true
from app.apiary_calls as calls
join app.apiary_calls as later on later.parent = calls.parent and later.step = (
    select min(step) from app.apiary_calls as next
    where next.parent = calls.parent and next.step > calls.step and next.status <> 'stopped')
where calls.seq in (select value from json_each(:calls)) and calls.step is not null and later.status <> 'stopped'
limit :limit;

-- name: log_columns
select name from pragma_table_info(:table, 'app');

-- The latest calls that fit, found in the index, which may have some that were dropped; every filter that is null lets
-- all pass.
-- name: log_calls_found
select calls.* from main.called as found cross join app.apiary_calls as calls using (seq)
where (:function is null or found.function = :function) and (:status is null or found.status = :status)
  and (:caller is null or found.caller = :caller)
  and (:since is null or found.started >= :since) and (:until is null or found.started < :until)
  and found.seq < coalesce(:before, 9223372036854775807) and found.seq > coalesce(:after, -1)
order by found.seq desc limit :limit;

-- The same of those in which, for each of some words, there is a word that begins so.
-- name: log_calls_said
select calls.*
from main.said cross join main.called as found on found.seq = said.rowid
cross join app.apiary_calls as calls on calls.seq = said.rowid
where said match (select group_concat('"' || value || '"*', ' ') from json_each(:words))
  and (:function is null or found.function = :function) and (:status is null or found.status = :status)
  and (:caller is null or found.caller = :caller)
  and (:since is null or found.started >= :since) and (:until is null or found.started < :until)
  and said.rowid < coalesce(:before, 9223372036854775807) and said.rowid > coalesce(:after, -1)
order by said.rowid desc limit :limit;

-- The first call, by its commit, that began since some time; and the first effects of it or a later one.
-- name: log_first_call
select min(seq) as seq from main.called where started >= :since;

-- name: log_first_effect
select effect from main.sources where call >= :seq order by call limit 1;
