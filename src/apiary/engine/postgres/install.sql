-- Statements of the installer, which alone may make roles, schemas and functions in Python.

-- One installer at a time in a database.
-- name: lock
select pg_advisory_xact_lock(hashtext('apiary install'));

-- name: is_superuser
select rolsuper from pg_roles where rolname = current_user;

-- name: create_platform_schema
create schema if not exists apiary;

-- The number of system schema files applied to a schema; the table is the first thing that is made there.
-- name: create_schema_table
create table if not exists {schema}.schema (number integer primary key, name text not null);

-- name: schema_number
select coalesce(max(number), 0) from {schema}.schema;

-- name: insert_schema
insert into {schema}.schema (number, name) values ($1, $2);

-- name: has_archive
select exists (select from apiary.archives where hash = $1);

-- name: insert_archive
insert into apiary.archives (hash, content) values ($1, $2) on conflict do nothing;

-- name: insert_program
insert into apiary.programs (hash, app, module, version, log, archives) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing;

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

-- name: grant_connect
grant connect on database {database} to {role};

-- Who owns a schema ($1), and whether that is the role of an app: another schema, its log ($2), is open to it.
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

-- name: grant_run
grant execute on function apiary.prepare, apiary.run, apiary.call, apiary.failure to {role};
