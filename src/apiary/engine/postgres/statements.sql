-- Statements of the PostgreSQL engine itself; those of the users' functions come from their functions.
-- {log} is the schema of the app's own log and queue, which belongs to the platform.

-- name: insert_call
insert into {log}.calls (id, function, kind, version, caller, attempt, started, duration, status, input, output,
                         error, lines, nested, parent, key, step)
values ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::integer, $7::bigint, $8::bigint, $9::text, $10::text,
        $11::text, $12::text, $13::text, $14::text, $15::uuid, $16::text, $17::bigint);

-- The role of the app may write to its log and not read it, but a call must find its own earlier outcome.
-- name: find
select * from {log}.find($1::uuid, $2::text);

-- name: find_all
select * from {log}.find_all($1::uuid[]);

-- name: enqueue
insert into {log}.queue (id, function, input, caller, parent, due, version, roles, step, epoch, queue, share, priority,
                         unique_key, delayed, key)
values ($1::uuid, $2::text, $3::text, $4::text, $5::uuid, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint,
        $11::text, $12::text, $13::integer, $14::text, $15::integer, $16::text);

-- name: enqueue_unique
select * from {log}.enqueue_unique($1::uuid, $2::text, $3::text, $4::text, $5::uuid, $6::bigint, $7::text, $8::text,
                                   $9::bigint, $10::bigint, $11::text, $12::text, $13::integer, $14::text, $15::integer,
                                   $16::text, $17::integer);

-- name: claim
select * from {log}.claim($1::uuid, $2::bigint);

-- name: pause
select {log}.pause($1::text);

-- name: unpause
select {log}.unpause($1::text);

-- Tells the servers that listen of calls that were put into the queue without one of them.
-- name: notify
select pg_catalog.pg_notify($1::text, '');

-- Whether a host still counts as one, or was declared lost.
-- name: counts
select apiary.counts($1::uuid);

-- name: listen
listen {channel};

-- What of a session has to stay as it is, whatever functions of the database do. It costs some microseconds.
-- name: state
select pg_catalog.concat_ws(' ',
    pg_catalog.current_setting('search_path'), pg_catalog.current_setting('role'),
    pg_catalog.current_setting('default_transaction_isolation'),
    pg_catalog.current_setting('default_transaction_read_only'),
    pg_catalog.current_setting('default_transaction_deferrable'), pg_catalog.current_setting('synchronous_commit'),
    pg_catalog.current_setting('timezone'), pg_catalog.current_setting('datestyle'),
    pg_catalog.current_setting('intervalstyle'), pg_catalog.current_setting('bytea_output'),
    pg_catalog.current_setting('extra_float_digits'), pg_catalog.current_setting('statement_timeout'),
    pg_catalog.current_setting('lock_timeout'), pg_catalog.current_setting('idle_in_transaction_session_timeout'),
    pg_catalog.current_setting('row_security'), pg_catalog.current_setting('session_replication_role'),
    case pg_catalog.pg_my_temp_schema() when 0 then 0 else
        (select pg_catalog.count(*) from pg_catalog.pg_class where relnamespace = pg_catalog.pg_my_temp_schema()) end);

-- Runs a batch in a backend, unless its session is not what it was in the beginning. A lock of the session goes at the
-- end, or, after a failure, before the next batch.
-- name: run
select pg_catalog.pg_advisory_unlock_all(),
       case when ({state}) operator(pg_catalog.=) $3::text then apiary.run($1::text, $2::bytea) end,
       pg_catalog.pg_advisory_unlock_all();

-- Before the commit of several calls: fails where one of them has changed the session for the others.
-- name: unchanged
select 1 / (({state}) operator(pg_catalog.=) $1::text)::integer;

-- After a batch that ran beside the database.
-- name: after
select ({state}), pg_catalog.pg_advisory_unlock_all();

-- Make a session again what it was.
-- name: reset_role
reset role;

-- name: reset_settings
reset all;

-- name: drop_temporary
discard temp;

-- Which process of the server has the session, and the state of that.
-- name: opened
select pg_catalog.pg_backend_pid(), ({state});

-- The roles of a role of PostgreSQL: those whose privileges it has without asking, itself among them.
-- name: roles
select rolname::text from pg_catalog.pg_roles
where rolname <> 'admin' and pg_catalog.pg_has_role($1::name, oid, 'usage')
union all
select 'admin' from pg_catalog.pg_roles where rolname = $1::name and rolsuper;

-- name: is_read_only
select pg_catalog.current_setting('transaction_read_only') = 'on';

-- Until the savepoint around it ends.
-- name: only_read
select pg_catalog.set_config('transaction_read_only', 'on', true);

-- Runs what `InsideSession` has ready where the transaction only reads: until this statement ends.
-- name: confined
select pg_catalog.set_config('transaction_read_only', 'on', true), apiary.confined();

-- name: dequeue
select {log}.dequeue($1::uuid);

-- name: count_attempt
select {log}.count_attempt($1::uuid, $2::integer);

-- name: queued_call
select * from {log}.queued_call($1::uuid);

-- name: workflows_due
select * from {log}.workflows_due($1::text, $2::bigint, $3::integer);

-- name: waiting
select * from {log}.waiting($1::text, $2::bigint, $3::integer);

-- name: begun
select * from {log}.begun();

-- name: paused
select * from {log}.paused();

-- name: admit
select * from {log}.admit($1::text, $2::integer, $3::integer, $4::float8);

-- name: scheduled
select {log}.scheduled($1::text, $2::float8, $3::float8);

-- name: versions_due
select * from {log}.versions_due($1::text, $2::bigint);

-- name: adopt
select {log}.adopt($1::text, $2::bigint, $3::uuid[]);

-- name: instance
select * from {log}.instance($1::uuid, $2::text);

-- name: insert_instance
insert into {log}.queue (id, function, version, input, caller, roles, key, parent, step, started, epoch, first, issued,
                         waits, acting, due, deadline, state, problem, topic, owner)
values ($1::uuid, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::uuid, $9::bigint, $10::bigint,
        $11::bigint, $12::bigint, $13::bigint, $14::bigint, $15::integer = 1, $16::bigint, $17::bigint, $18::text,
        $19::text, $20::text, case when $15::integer = 1 then {log}.me() end);

-- name: update_instance
select {log}.update_instance($1::uuid, $2::text, $3::text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::integer,
                             $9::bigint, $10::bigint, $11::text, $12::text, $13::text);

-- name: drop_instance
select {log}.drop_instance($1::uuid);

-- Of large arguments and results, only that they are there: what is not asked for is not read, wherever it lies.
-- name: steps
select number, id, kind, function, case when octet_length(input) <= $4::bigint then input else '' end as input,
       case when octet_length(output) <= $4::bigint then output end as output, error,
       greatest(octet_length(input), octet_length(output)) > $4::bigint as omitted
from {log}.steps($1::uuid, $2::bigint, $3::bigint);

-- name: take_message
select * from {log}.take_message($1::uuid, $2::text);

-- name: send
select {log}.send($1::uuid, $2::text, $3::text, $4::uuid);

-- What is checked at the commit otherwise is checked now; what comes after waits for the commit again. The setting is
-- undone with the block, and only with the subtransaction that made it: undoing one further out would not do.
-- name: check_constraints
do $$ begin
    set constraints all immediate;
    raise exception using errcode = 'AP000';
exception when sqlstate 'AP000' then
end $$;

-- name: publish
select {log}.publish($1::uuid, $2::text, $3::text);

-- name: wake
select * from {log}.wake($1::uuid, $2::bigint, $3::bigint);

-- One process migrates an app at a time. Taken before the transaction, whose snapshot is that of its first statement.
-- name: migration_lock
select pg_advisory_lock(hashtext($1));

-- Taken for the whole of a batch, before its transaction, so that it sees what the one before has committed.
-- name: take_turn
select pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended($1, 0));

-- name: end_turn
select pg_catalog.pg_advisory_unlock_all();

-- In milliseconds, for this transaction.
-- name: lock_timeout
select set_config('lock_timeout', $1, true);

-- Sessions of other roles that have tables of a schema locked.
-- name: holders
select distinct a.pid, a.usename::text, a.application_name
from pg_catalog.pg_locks l
join pg_catalog.pg_class c on c.oid = l.relation
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_stat_activity a on a.pid = l.pid
where n.nspname = $1::text and l.granted and a.usename <> current_user and a.datname = current_database();

-- name: transaction_id
select pg_current_xact_id()::text;

-- name: applied_migrations
select name, checksum from {log}.migrations;

-- name: insert_migration
insert into {log}.migrations (name, checksum, version, applied) values ($1, $2, $3, $4);

-- The types that the server found for the parameters of a statement that is prepared under this name.
-- name: parameter_types
select parameter_types::text[] as names, parameter_types::oid[]::bigint[] as oids
from pg_catalog.pg_prepared_statements where name = $1::text;

-- What a type is: its kind (b, d, c, …), what it is made of where it is a domain, the type of its elements.
-- name: type
select typtype::text as kind, typbasetype::bigint as base,
       case typsubscript when 'pg_catalog.array_subscript_handler'::regproc then typelem::bigint end as element
from pg_catalog.pg_type where oid = $1::bigint::oid;

-- A statement whose columns get other names, because two of them have the same.
-- name: name_columns
with apiary_rows ({names}) as (
{statement}
) select * from apiary_rows;
