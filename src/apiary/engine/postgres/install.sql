-- Statements of the installer, which alone may make roles, schemas and functions in Python.

-- One installer at a time in a database.
-- name: lock
select pg_advisory_xact_lock(hashtext('apiary install'));

-- A pooler answers with a process of its own.
-- name: backend
select pg_backend_pid();

-- name: is_superuser
select rolsuper from pg_roles where rolname = current_user;

-- name: create_platform_schema
create schema if not exists apiary;

-- The number of system schema files applied to a schema; the table is the first thing that is made there.
-- name: create_schema_table
create table if not exists {schema}.schema (number integer primary key, name text not null);

-- name: has_schema_table
select to_regclass(quote_ident($1) || '.schema') is not null;

-- name: schema_number
select coalesce(max(number), 0) from {schema}.schema;

-- name: insert_schema
insert into {schema}.schema (number, name) values ($1, $2);

-- name: secret
select value from apiary.secrets where name = 'roles';

-- Whether a role that is there has rights that the role of an app must not have.
-- name: known_role
select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls from pg_roles where rolname = $1;

-- name: create_role
create role {role} login password {password};

-- name: alter_role
alter role {role} login password {password};

-- name: grant_role
grant {role} to current_user;

-- Two calls that wait for each other do so until the server looks, which it does after a second otherwise. Only a
-- superuser may say so.
-- name: find_deadlocks_soon
alter role {role} set deadlock_timeout = '50ms';

-- name: grant_connect
grant connect on database {database} to {role};

-- Who owns a schema ($1), and whether that is the role of an app: a log ($2) of another owner is open to it.
-- name: schema_owner
select r.rolname, exists (
    select from pg_namespace l cross join aclexplode(l.nspacl) a
    where l.nspname = $2 and l.nspowner <> n.nspowner and a.grantee = n.nspowner and a.privilege_type = 'USAGE')
from pg_namespace n join pg_roles r on r.oid = n.nspowner where n.nspname = $1;

-- name: create_app_schema
create schema if not exists {schema} authorization {role};

-- name: create_log_schema
create schema if not exists {log};

-- What `pg_dump` has brought from another server bears the numbers of transactions of that one: it comes first.
-- name: forget_order
update {log}.calls set tx = '0'
where tx <> '0' and exists (select from {log}.calls where tx >= pg_snapshot_xmax(pg_current_snapshot()));

-- name: grant_run
grant execute on function apiary.prepare, apiary.run, apiary.call, apiary.confined, apiary.failure to {role};
