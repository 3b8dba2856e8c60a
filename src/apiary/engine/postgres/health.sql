-- What `apiary doctor` asks a server. Nothing here changes anything.

-- So that a look does not take for ever.
-- name: patience
select set_config('statement_timeout', '10s', false), set_config('lock_timeout', '2s', false);

-- A pooler answers with a process of its own.
-- name: backend
select pg_backend_pid();

-- name: primary
select pg_is_in_recovery() as standby, current_setting('default_transaction_read_only') = 'on' as read_only;

-- name: rights
select rolname::text as role, rolsuper as superuser, rolcreaterole as makes_roles,
       has_database_privilege(current_database(), 'CREATE') as makes_schemas
from pg_roles where rolname = current_user;

-- name: settings
select name, setting from pg_settings where name = any ($1);

-- Connections that are no superuser's, now: those of the platform's apps, and others.
-- name: connections
select count(*) filter (where usename = any ($1)) as ours, count(*) filter (where not usename = any ($1)) as others
from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid();

-- Sessions that wait for locks of others, for how long, and who has those.
-- name: blocked
select w.pid, extract(epoch from clock_timestamp() - w.query_start)::integer as seconds, h.pid as holder,
       h.usename::text as role, h.application_name as name, h.state
from pg_stat_activity w
cross join lateral unnest(pg_blocking_pids(w.pid)) as b (pid)
join pg_stat_activity h on h.pid = b.pid
where w.datname = current_database()
order by seconds desc nulls last, w.pid;

-- The least room on the disks of the server: of its data, its write-ahead log and its tablespaces.
-- name: make_free
create function pg_temp.apiary_free(data text, tablespaces text[]) returns bigint language plpython3u as $$
import os, shutil
places = [data, os.path.join(data, "pg_wal"), *filter(None, tablespaces)]
return min(shutil.disk_usage(place).free for place in places)
$$;

-- name: free
select pg_temp.apiary_free(current_setting('data_directory'),
                           array(select pg_tablespace_location(oid) from pg_tablespace)) as bytes;

-- Replication slots that nobody reads from, and how much of the write-ahead log each keeps.
-- name: slots
select slot_name::text as name, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint as bytes
from pg_replication_slots where not active and restart_lsn is not null order by bytes desc;

-- Whether everybody may run Python as the user of the server.
-- name: python_for_all
select exists (select from pg_language where lanname = 'plpython3u' and lanpltrusted
               and has_language_privilege('public', oid, 'usage')) as open;

-- How long ago the oldest transaction began that still runs, and its process; how many transactions until the wraparound.
-- name: age
select (select extract(epoch from max(now() - xact_start))::bigint from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()) as seconds,
       (select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
        order by xact_start limit 1) as pid,
       (select count(*) from pg_prepared_xacts) as prepared,
       (select age(datfrozenxid) from pg_database where datname = current_database()) as transactions;

-- Whether everybody may make things in a schema that is on the search path of all apps.
-- name: public_schema
select exists (select from pg_namespace n cross join aclexplode(n.nspacl) a
               where n.nspname = 'public' and a.grantee = 0 and a.privilege_type = 'CREATE') as open;

-- Lines by which somebody may log in without saying a password. Only superusers may look.
-- name: trust
select count(*) as lines from pg_hba_file_rules where auth_method = 'trust';

-- The apps: the schema of each, its role, the schema of its log, and whether the role has rights that no app should have.
-- name: apps
select a.nspname::text as app, r.rolname::text as role, l.nspname::text as log,
       r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls as privileged,
       array(select m.roleid::regrole::text from pg_auth_members m where m.member = r.oid) as member_of,
       has_schema_privilege(l.oid, 'usage') as readable
from pg_namespace l
cross join lateral aclexplode(l.nspacl) g
join pg_roles r on r.oid = g.grantee
join pg_namespace a on a.nspowner = g.grantee
where g.privilege_type = 'USAGE' and g.grantee <> l.nspowner and l.nspname like 'apiary\_%'
  and exists (select from pg_class c where c.relnamespace = l.oid and c.relname = 'queue')
order by a.nspname like 'apiary\_%' desc, a.nspname;

-- name: has_platform
select to_regclass('apiary.schema') is not null as present;

-- name: schema_number
select coalesce(max(number), 0) as number from {schema}.schema;

-- The calls of an app are estimated, once the server has: counting them takes long.
-- name: app
select (select count(*) from {schema}.migrations) as migrations, (select count(*) from {schema}.queue) as queued,
       (select nullif(reltuples, -1)::bigint from pg_class where oid = '{schema}.calls'::regclass) as calls;

-- The servers that use the database, and the apps of which they have hosts.
-- name: servers
select s.id::text as id, s.description, s.lost is not null as lost, extract(epoch from s.lease)::float8 as lease,
       extract(epoch from clock_timestamp() - s.beat)::float8 as silent,
       array(select distinct h.app from apiary.hosts h where h.server = s.id and h.lost is null order by h.app) as apps
from apiary.servers s order by s.started, s.id;

-- name: serving
select app, version from apiary_registry.activations a
where number = (select max(number) from apiary_registry.activations b where b.app = a.app);
