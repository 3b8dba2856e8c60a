-- The ways into the platform's code in a backend. The loader is kept for the session, under a key of this version of it.
create or replace function apiary.prepare() returns void language plpython3u as $shim$
loader = {"__name__": "loader"}
exec(compile({source}, "loader.py", "exec", dont_inherit=True), loader)
GD[{key}] = loader["Loader"](plpy)
$shim$;

-- Runs a batch of calls of a program in the transaction of the statement that asks for it, as the role that asks.
create or replace function apiary.run(program text, batch bytea) returns bytea language plpython3u as $shim$
if {key} not in GD:
    plpy.execute("select apiary.prepare()")
return GD[{key}].run(args[0], args[1])
$shim$;

-- Runs a call from SQL in the same way: the functions of an app's schema are made around it. Its arguments, which would
-- cost time if they had names, are the target, the arguments (JSON), the login of the caller, and the role it has set.
create or replace function apiary.call(text, text, text, text) returns text
language plpython3u as $shim$
if {key} not in GD:
    plpy.execute("select apiary.prepare()")
return GD[{key}].call(*args)
$shim$;

-- Runs what a call that goes on has ready: the body of a query, in a statement that lets nothing be written.
create or replace function apiary.confined() returns void language plpython3u as $shim$
GD[{key}].confined()
$shim$;

-- Why the last of these calls failed, in JSON, if it did.
create or replace function apiary.failure() returns json language plpython3u as $shim$
return GD[{key}].failure()
$shim$;

revoke all on function apiary.prepare, apiary.run, apiary.call, apiary.confined, apiary.failure from public;
