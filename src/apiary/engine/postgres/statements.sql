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
insert into {log}.queue (id, function, input, caller, parent, due, version, roles, step, epoch)
values ($1::uuid, $2::text, $3::text, $4::text, $5::uuid, $6::bigint, $7::text, $8::text, $9::bigint, $10::bigint);

-- Tells the servers that listen of calls that were put into the queue without one of them.
-- name: notify
select pg_catalog.pg_notify($1::text, '');

-- Whether a host still counts as one, or was declared lost.
-- name: counts
select apiary.counts($1::uuid);

-- name: listen
listen {channel};

-- The roles of a role of PostgreSQL: those whose privileges it has without asking, itself among them.
-- name: roles
select rolname::text from pg_catalog.pg_roles
where rolname <> 'admin' and pg_catalog.pg_has_role($1::name, oid, 'usage')
union all
select 'admin' from pg_catalog.pg_roles where rolname = $1::name and rolsuper;

-- name: is_read_only
select pg_catalog.current_setting('transaction_read_only') = 'on';

-- name: dequeue
select {log}.dequeue($1::uuid);

-- name: count_attempt
select {log}.count_attempt($1::uuid, $2::integer);

-- name: queued
select * from {log}.queued($1::integer, $2::uuid, $3::text, $4::bigint, $5::boolean);

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
select {log}.update_instance($1::uuid, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::integer,
                             $8::bigint, $9::bigint, $10::text, $11::text, $12::text);

-- name: drop_instance
select {log}.drop_instance($1::uuid);

-- name: steps
select * from {log}.steps($1::uuid, $2::bigint, $3::bigint);

-- name: take_message
select * from {log}.take_message($1::uuid, $2::text);

-- name: send
select {log}.send($1::uuid, $2::text, $3::text, $4::uuid);

-- What is checked at the commit otherwise is checked now, and from now on at once.
-- name: check_constraints
set constraints all immediate;

-- name: publish
select {log}.publish($1::uuid, $2::text, $3::text);

-- name: wake
select * from {log}.wake($1::uuid, $2::bigint, $3::bigint);

-- One process migrates an app at a time. Taken before the transaction, whose snapshot is that of its first statement.
-- name: migration_lock
select pg_advisory_lock(hashtext($1));

-- In milliseconds, for this transaction.
-- name: lock_timeout
select set_config('lock_timeout', $1, true);

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
