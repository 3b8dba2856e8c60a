-- What belongs to the platform and to no app: code for the backends, and a secret, which only the installer reads.

-- Archives by content: the platform itself with its libraries, the packages of an app, the sources of an app.
create table apiary.archives (
    hash text primary key,
    content bytea not null
);

-- What a backend loads: archives in the order of its import path, and the module with the app.
create table apiary.programs (
    hash text primary key,
    app text not null,
    module text not null,
    version text not null,
    log text not null,
    archives text[] not null
);

-- From it the passwords of the apps' roles are made.
create table apiary.secrets (
    name text primary key,
    value text not null
);

insert into apiary.secrets (name, value)
values ('roles', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''));

revoke all on all tables in schema apiary from public;

-- The role of an app reads the code of that app: what names the log into which the role may write.
alter table apiary.programs enable row level security;
alter table apiary.archives enable row level security;
create policy own on apiary.programs for select
    using (pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace(pg_catalog.quote_ident(log))::oid, 'usage'));
create policy own on apiary.archives for select
    using (exists (select from apiary.programs p where archives.hash = any (p.archives)));
grant select on apiary.programs, apiary.archives to public;

create function apiary.archive(wanted text) returns bytea
language sql stable set search_path = pg_catalog, pg_temp
as $$ select content from apiary.archives where hash = wanted $$;

create function apiary.program(wanted text)
returns table (app text, module text, version text, log text, archives text[])
language sql stable set search_path = pg_catalog, pg_temp
as $$ select p.app, p.module, p.version, p.log, p.archives from apiary.programs p where p.hash = wanted $$;

grant usage on schema apiary to public;
