-- Statements of the installer about the code that backends load.

-- name: has_archive
select hash from apiary.archives where hash = $1;

-- name: insert_archive
insert into apiary.archives (hash, content) values ($1, $2) on conflict do nothing;

-- name: insert_program
insert into apiary.programs (hash, app, module, version, log, archives) values ($1, $2, $3, $4, $5, $6)
on conflict do nothing returning hash;

-- name: note_program
update apiary.hosts set program = $2 where id = $1::uuid;

-- Programs that no host and no function of SQL names. Those of a version of which a host is about to name one stay.
-- name: forget_programs
delete from apiary.programs p
where not exists (select from apiary.hosts h
                  where h.program = p.hash or (h.program is null and h.app = p.app and h.version = p.version))
  and not exists (select from pg_catalog.pg_proc f
                  where f.prosrc like '-- apiary %' and position(p.hash || ':' in f.prosrc) > 0);

-- name: forget_archives
delete from apiary.archives a where not exists (select from apiary.programs p where a.hash = any (p.archives));
