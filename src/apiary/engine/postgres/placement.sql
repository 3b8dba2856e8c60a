-- What a server must have so that functions can run inside it.

-- name: has_python
select exists (select from pg_available_extensions where name = 'plpython3u');

-- An administrator may let a role that is no superuser make functions in Python.
-- name: may_make_functions
select rolsuper or exists (select from pg_language where lanname = 'plpython3u' and lanpltrusted
                           and has_language_privilege(oid, 'usage'))
from pg_roles where rolname = current_user;

-- name: create_python
create extension if not exists plpython3u;

-- Which Python a backend has, and whether it has the timers that deadlines need.
-- name: make_probe
create or replace function pg_temp.apiary_probe() returns text language plpython3u as $$
import ctypes, platform, sys
ctypes.CDLL(None).timer_create
return "%d.%d %s %s" % (*sys.version_info[:2], sys.platform, platform.machine())
$$;

-- name: probe
select pg_temp.apiary_probe();
