-- Runs a batch of calls of a program in the transaction of the statement that asks for it, as the role that asks.
-- A session that runs several programs keeps the modules of each apart: those of the others are put aside meanwhile.
create or replace function apiary.run(program text, batch bytea) returns bytea language plpython3u as $shim$
state = GD.get("apiary")
if state is None:
    state = GD["apiary"] = {"current": None, "modules": {}, "run": {}}
if state["current"] != program:
    import io
    import os
    import sys
    import tarfile
    import tempfile

    def unpacked(hash):
        folder = os.path.join(os.getcwd(), "apiary", hash)
        if not os.path.isdir(folder):
            content = plpy.execute(plpy.prepare("select apiary.archive($1) as content", ["text"]), [hash])[0]["content"]
            os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
            fresh = tempfile.mkdtemp(dir=os.path.dirname(folder))
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                archive.extractall(fresh)
            try:
                os.rename(fresh, folder)
            except OSError:
                import shutil

                shutil.rmtree(fresh)
        return folder

    root = os.path.join(os.getcwd(), "apiary") + os.sep

    def ours(module):
        return (getattr(module, "__file__", None) or "").startswith(root)

    aside = {name: sys.modules.pop(name) for name, module in list(sys.modules.items()) if ours(module)}
    if state["current"] is not None:
        state["modules"][state["current"]] = aside
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(root)]
    state["current"] = None
    found = plpy.execute(plpy.prepare("select * from apiary.program($1)", ["text"]), [program])
    if not found:
        plpy.error("there is no program " + program, sqlstate="AP404")
    sys.path[:0] = [unpacked(hash) for hash in found[0]["archives"]]
    sys.modules.update(state["modules"].get(program, {}))
    if program not in state["run"]:
        from apiary.engine.postgres.inside.program import load

        state["run"][program] = load(found[0])
    state["current"] = program
return state["run"][program](batch)
$shim$;

revoke all on function apiary.run from public;
