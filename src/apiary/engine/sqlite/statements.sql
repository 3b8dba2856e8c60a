-- Statements of the embedded engine itself; those of the users' functions come from their functions.

-- name: insert_call
insert into apiary_calls (id, function, kind, version, caller, attempt, started, duration, status, input, output,
                          error, lines, nested, parent, key, step)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- The effects of the call whose record was inserted just before.
-- name: insert_effects
insert into apiary_effects (call, effects) values (last_insert_rowid(), ?);

-- name: insert_migration_effects
insert into apiary_effects (migration, effects) values (?, ?);

-- name: insert_term
insert into apiary_terms (id, term) values (?, ?) on conflict do nothing;

-- The columns of the app's tables that rows are stored with, and their places in the primary key. (A virtual table has
-- tables in which it keeps its rows.)
-- name: columns
select tables.name, columns.name, columns.pk
from pragma_table_list as tables, pragma_table_xinfo(tables.name) as columns
where tables.schema = 'main' and tables.type in ('table', 'shadow') and columns.hidden in (0, 3)
  and tables.name not like 'apiary\_%' escape '\' and tables.name not like 'sqlite\_%' escape '\'
order by tables.name, columns.cid;

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

-- A workflow that was begun with an idempotency key, and has not ended, as the record that it does not have yet.
-- name: find_open
select id, function, 'workflow', coalesce(version, ''), caller, 1, coalesce(started, due), 0, 'open', input, null, null, null,
       null, parent, key, step
from apiary_queue where key = ?1;

-- name: enqueue
insert into apiary_queue (id, function, input, caller, parent, due, attempts, version, roles, step, epoch, queue, share,
                          priority, unique_key, delayed, key)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- Where a call of the function waits under the same name, that stays; the last parameter says whether it gets these
-- arguments, and this time.
-- name: enqueue_unique
insert into apiary_queue (id, function, input, caller, parent, due, attempts, version, roles, step, epoch, queue, share,
                          priority, unique_key, delayed, key)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
on conflict (function, unique_key) where unique_key is not null do update set
    input = case when ?18 then excluded.input else input end,
    due = case when ?18 then excluded.due else due end
returning id, function, input, caller, parent, due, attempts, 0, version, roles, step, epoch, queue, share, priority,
          unique_key, delayed;

-- A call begins whose arguments, and whose time, may have changed while it waited. From now on, another one may wait.
-- name: claim
update apiary_queue set unique_key = case when delayed and due > ?2 then unique_key end where id = ?1
returning id, function, input, caller, parent, due, attempts, 0, version, roles, step, epoch, queue, share, priority,
          unique_key, delayed;

-- name: dequeue
delete from apiary_queue where id = ?;

-- An attempt that came to no outcome; the others leave no trace here, so that the usual call costs no write.
-- name: count_attempt
update apiary_queue set attempts = ? where id = ?;

-- The workflows that have begun, of one version, and are due until some time.
-- name: workflows_due
select id, function, input, caller, parent, due, attempts, 0, version, roles, step, epoch, queue, share, priority,
       unique_key, delayed
from apiary_queue where version = ?1 and due <= ?2 and state <> 'blocked' order by due, id limit ?3;

-- The shares of queues of which calls wait, by priority, those first of which the first call is due first. They are found
-- one after another in the index, whatever the number of their calls.
-- name: shares
with recursive shares (queue, share, priority, delayed, due) as (
    select * from (
        select queue, share, priority, delayed, due from apiary_queue
        where version is null and queue >= coalesce(?1, '')
        order by queue, share, priority, delayed, due, id limit 1
    )
    union all
    select next.queue, next.share, next.priority, next.delayed, next.due
    from shares join apiary_queue as next on next.id = coalesce(
        (select id from apiary_queue as later
         where later.version is null and later.queue = shares.queue and later.share = shares.share
           and later.priority = shares.priority and later.delayed > shares.delayed
         order by later.delayed, later.due, later.id limit 1),
        (select id from apiary_queue as later
         where later.version is null and later.queue = shares.queue and later.share = shares.share
           and later.priority > shares.priority order by later.priority, later.delayed, later.due, later.id limit 1),
        (select id from apiary_queue as later
         where later.version is null and later.queue = shares.queue and later.share > shares.share
         order by later.share, later.priority, later.delayed, later.due, later.id limit 1),
        (select id from apiary_queue as later where later.version is null and later.queue > shares.queue
         order by later.queue, later.share, later.priority, later.delayed, later.due, later.id limit 1)
    )
    where ?1 is null or next.queue = ?1
)
select queue, share, priority, delayed from shares
where (?1 is null or queue = ?1) and (not delayed or due <= ?2) order by due limit ?3;

-- The first calls of a share. Of those that were tried, how often their process died.
-- name: waiting
select id, function, input, caller, parent, due, attempts, case attempts when 0 then 0 else
       (select count(*) from apiary_calls as lost
        where lost.id = queue.id and lost.status = 'stopped' and lost.error ->> 'code' = 'host_crashed') end,
       version, roles, step, epoch, queue, share, priority, unique_key, delayed
from apiary_queue as queue
where version is null and queue.queue = ?1 and share = ?2 and priority = ?3 and delayed = ?4
  and due <= ?5
order by due, id limit ?6;

-- name: begun
select queue, id from apiary_queue where version is not null and queue <> '';

-- name: paused
select queue from apiary_paused;

-- name: pause
insert into apiary_paused (queue) values (?) on conflict do nothing;

-- name: unpause
delete from apiary_paused where queue = ?;

-- What does not count any more for the rate of a queue; also what is later than now, because the clock was set.
-- name: forget_admitted
delete from apiary_admitted where queue = ?1 and (at <= ?2 - ?3 or at > ?2 + ?3);

-- name: admitted
select coalesce(sum(calls), 0), min(at) from apiary_admitted where queue = ?;

-- name: admit
insert into apiary_admitted (queue, at, calls) values (?, ?, ?);

-- name: versions_due
select distinct version from apiary_queue where version <> ?1 and due <= ?2 and state <> 'blocked';

-- name: queued_call
select id, function, input, caller, parent, due, attempts, case attempts when 0 then 0 else
       (select count(*) from apiary_calls as lost
        where lost.id = queue.id and lost.status = 'stopped' and lost.error ->> 'code' = 'host_crashed') end,
       version, roles, step, epoch, queue, share, priority, unique_key, delayed
from apiary_queue as queue where id = ?;

-- name: instance
select id, function, coalesce(version, ''), input, caller, roles, key, parent, step, coalesce(started, due), epoch, first,
       issued, waits, acting,
       case when version is null and not delayed then 0 else due end, deadline, state, problem, topic
from apiary_queue where id = ?1 and epoch > 0;

-- name: instance_of_key
select id, function, coalesce(version, ''), input, caller, roles, key, parent, step, coalesce(started, due), epoch, first,
       issued, waits, acting,
       case when version is null and not delayed then 0 else due end, deadline, state, problem, topic
from apiary_queue where key = ?1 and epoch > 0;

-- name: insert_instance
insert into apiary_queue (id, function, version, input, caller, roles, key, parent, step, started, epoch, first, issued,
                          waits, acting, due, deadline, state, problem, topic)
values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20);

-- name: update_instance
update apiary_queue set version = ?3, unique_key = null, input = ?4, started = ?10, first = ?12, issued = ?13, waits = ?14, acting = ?15, due = ?16,
                        deadline = ?17, state = ?18, problem = ?19, topic = ?20
where id = ?1;

-- Those for which a process that is gone was running actions; whoever runs the queue next does so again. Of which process
-- it was the version tells: of this one, or of one that no process looks after (?4: those that are; null: all are).
-- name: adopt
update apiary_queue set epoch = epoch + 1, due = ?1, acting = 0
where acting = 1 and hex(id) not in (select value from json_each(?3))
      and (version = ?2 or (?4 is not null and version not in (select value from json_each(?4))));

-- name: forget_messages
delete from apiary_messages where workflow = ?;

-- Of large arguments and results, only that they are there: what is not asked for is not read, wherever it lies.
-- name: steps
select step, id, kind, function, case when octet_length(input) <= ?4 then input else '' end,
       case when octet_length(output) <= ?4 then output end, error,
       max(octet_length(input), coalesce(octet_length(output), 0)) > ?4
from apiary_calls
where parent = ?1 and step >= ?2 and step < ?3 and step is not null and status <> 'stopped' order by step;

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
returning id, function, input, caller, parent, due, attempts, 0, version, roles, step, epoch, queue, share, priority,
          unique_key, delayed;

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
