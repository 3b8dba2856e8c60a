-- Statements of the embedded engine itself; those of the users' functions come from their functions.

-- name: insert_call
insert into apiary_calls (id, function, kind, version, caller, attempt, started, duration, status, input, output,
                          error, lines, nested, parent, key, step)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: find_call
select id, function, kind, version, caller, attempt, started, duration, status, input, output, error, lines, nested,
       parent, key, step
from apiary_calls where id = ?1 and status <> 'stopped';

-- name: find_calls
select id, function, kind, version, caller, attempt, started, duration, status, input, output, error, lines, nested,
       parent, key, step
from apiary_calls where id in (select unhex(value) from json_each(?1)) and status <> 'stopped';

-- name: find_key
select id, function, kind, version, caller, attempt, started, duration, status, input, output, error, lines, nested,
       parent, key, step
from apiary_calls where key = ?1;

-- name: enqueue
insert into apiary_queue (id, function, input, caller, parent, due, attempts, version, roles, step, epoch)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: dequeue
delete from apiary_queue where id = ?;

-- An attempt that came to no outcome; the others leave no trace here, so that the usual call costs no write.
-- name: count_attempt
update apiary_queue set attempts = ? where id = ?;

-- What waits, the earliest first; workflows of one version only, and those that are due until some time.
-- name: queued
select id, function, input, caller, parent, due, attempts, case attempts when 0 then 0 else
       (select count(*) from apiary_calls as lost
        where lost.id = queue.id and lost.status = 'stopped' and lost.error ->> 'code' = 'host_crashed') end,
       version, roles, step, epoch
from apiary_queue as queue where (version is null and ?4) or (version = ?1 and due <= ?2 and state <> 'blocked')
order by due, id limit ?3;

-- name: versions_due
select distinct version from apiary_queue where version <> ?1 and due <= ?2 and state <> 'blocked';

-- name: queued_call
select id, function, input, caller, parent, due, attempts, case attempts when 0 then 0 else
       (select count(*) from apiary_calls as lost
        where lost.id = queue.id and lost.status = 'stopped' and lost.error ->> 'code' = 'host_crashed') end,
       version, roles, step, epoch
from apiary_queue as queue where id = ?;

-- name: instance
select id, function, version, input, caller, roles, key, parent, step, coalesce(started, due), epoch, first, issued,
       waits, acting, due, deadline, state, problem, topic
from apiary_queue where id = ?1 and version is not null;

-- name: instance_of_key
select id, function, version, input, caller, roles, key, parent, step, coalesce(started, due), epoch, first, issued,
       waits, acting, due, deadline, state, problem, topic
from apiary_queue where key = ?1 and version is not null;

-- name: insert_instance
insert into apiary_queue (id, function, version, input, caller, roles, key, parent, step, started, epoch, first, issued,
                          waits, acting, due, deadline, state, problem, topic)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20);

-- name: update_instance
update apiary_queue set input = ?4, started = ?10, first = ?12, issued = ?13, waits = ?14, acting = ?15, due = ?16,
                        deadline = ?17, state = ?18, problem = ?19, topic = ?20
where id = ?1;

-- Those for which a process that is gone was running actions; whoever runs the queue next does so again.
-- name: adopt
update apiary_queue set epoch = epoch + 1, due = ?, acting = 0
where acting = 1 and version = ? and hex(id) not in (select value from json_each(?));

-- name: forget_messages
delete from apiary_messages where workflow = ?;

-- name: steps
select step, id, kind, function, input, output, error from apiary_calls
where parent = ? and step >= ? and step < ? and step is not null and status <> 'stopped' order by step;

-- name: take_message
delete from apiary_messages where seq = (select min(seq) from apiary_messages where workflow = ? and topic = ?)
returning value;

-- name: insert_message
insert into apiary_messages (id, workflow, topic, value) values (?, ?, ?, ?) on conflict do nothing;

-- name: publish
insert into apiary_published (workflow, name, value) values (?, ?, ?)
on conflict do update set value = excluded.value;

-- Until when the times of a schedule are done.
-- name: scheduled
insert into apiary_schedules (function, done) values (?1, coalesce(?2, ?3))
on conflict do update set done = max(done, coalesce(?2, done)) returning done;

-- Lets a workflow go on that waits for this step, or for messages (-1), or for whatever it waits for (null).
-- name: wake
update apiary_queue set due = ?2
where id = ?1 and version is not null and due > ?2 and state <> 'blocked' and (?3 is null or waits = ?3)
returning id, function, input, caller, parent, due, attempts, 0, version, roles, step, epoch;

-- name: applied_migrations
select name, checksum from apiary_migrations;

-- name: insert_migration
insert into apiary_migrations (name, checksum, version, applied) values (?, ?, ?, ?);

-- name: has_schema_table
select count(*) from sqlite_schema where name = 'apiary_schema';

-- The number of system schema files applied here; the table is the first thing that is made.
-- name: create_schema_table
create table if not exists apiary_schema (number integer primary key, name text not null);

-- name: schema_number
select coalesce(max(number), 0) from apiary_schema;

-- name: insert_schema
insert into apiary_schema (number, name) values (?, ?);

-- A call has a name of its own, because undoing it must undo what is nested in it, however that was left.
-- name: savepoint_call
savepoint apiary_call;

-- name: release_call
release apiary_call;

-- name: undo_call
rollback to apiary_call;

-- name: savepoint_nested
savepoint apiary_nested;

-- name: release_nested
release apiary_nested;

-- name: undo_nested
rollback to apiary_nested;

-- A statement that runs once for each of many rows is undone as one.
-- name: savepoint_many
savepoint apiary_many;

-- name: release_many
release apiary_many;

-- name: undo_many
rollback to apiary_many;

-- Preparing a statement trusts the schema that the connection knows; running one makes it look, and load it again.
-- name: load_schema
select 1 from sqlite_schema limit 0;

-- name: schema_version
pragma schema_version;

-- Changes when another connection, of whatever process, has committed since this one looked last.
-- name: data_version
pragma data_version;

-- name: begin_write
begin immediate;

-- name: begin_read
begin;

-- name: commit
commit;

-- name: rollback
rollback;

-- Is the file sound? The first fault that is found, or `ok`.
-- name: check
pragma quick_check(1);

-- name: counts
select (select count(*) from apiary_calls), (select count(*) from apiary_queue);

-- Tables of the app that hold on to rows of the platform, which could then not go.
-- name: references_to_platform
select tables.name, keys."table" from sqlite_schema as tables, pragma_foreign_key_list(tables.name) as keys
where tables.type = 'table' and tables.name not like 'apiary\_%' escape '\' and keys."table" like 'apiary\_%' escape '\';
