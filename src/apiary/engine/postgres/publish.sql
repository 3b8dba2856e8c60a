-- Statements that make the functions of an app for SQL. They run as the installer; the functions belong to the app's role.

-- The functions in a schema that were made here, told by the first line of their bodies, and those of its owner that
-- have the same name as one that shall be made ($2).
-- name: present
select p.oid::bigint as oid, p.proname::text as name, p.proargtypes::regtype[]::text[] as types,
       substring(p.prosrc from '^-- apiary ([0-9a-f]{64})') as digest
from pg_catalog.pg_proc p join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where n.nspname = $1 and (p.prosrc like '-- apiary %' or p.proname = any ($2));

-- Who may call a function, besides its owner.
-- name: grants
select distinct case a.grantee when 0 then 'public' else quote_ident(r.rolname) end as grantee, a.is_grantable
from pg_catalog.pg_proc p
cross join pg_catalog.aclexplode(p.proacl) a
left join pg_catalog.pg_roles r on r.oid = a.grantee
where p.oid = $1::oid and a.privilege_type = 'EXECUTE' and a.grantee <> p.proowner;

-- The answer is null where there is none, or where the call failed.
-- name: create
create or replace function {function} ({parameters}) returns {result}
language plpgsql volatile security definer
set search_path = {schema}, public, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
as {body};

-- The first line of a body is a comment with the digest of all that makes the function. What the app leaves for the
-- commit (deferred triggers, cursors that are held) PostgreSQL runs as the caller, so none of it may be there.
-- name: body
declare
    answer text := apiary.call({target}, json_build_object({arguments})::text, session_user::text, current_setting('role'));
    failure json;
begin
    if answer is null then
        failure := apiary.failure();
        if failure ->> 'hint' is not null then
            raise exception using errcode = failure ->> 'state', message = failure ->> 'message',
                detail = failure ->> 'detail', hint = failure ->> 'hint';
        elsif failure is not null then
            raise exception using errcode = failure ->> 'state', message = failure ->> 'message',
                detail = failure ->> 'detail';
        end if;
    end if;
    if exists (
        select from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
        where k.condeferrable and k.contype in ('t', 'x') and c.relowner = quote_ident(current_user)::regrole
    ) or exists (
        select from pg_catalog.pg_cursors where is_holdable and creation_time >= statement_timestamp()
    ) then
        raise exception using errcode = 'AP403',
            message = 'the app leaves code for the end of the transaction, which would run with your rights',
            hint = 'declare its constraint triggers and exclusion constraints "not deferrable", its cursors without hold';
    end if;
    return{answer};
end

-- name: own
alter function {function} ({types}) owner to {role};

-- name: revoke
revoke all on function {function} ({types}) from public;

-- name: grant
grant execute on function {function} ({types}) to {grantee};

-- name: grant_further
grant execute on function {function} ({types}) to {grantee} with grant option;

-- name: comment
comment on function {function} ({types}) is {text};

-- name: drop
drop function {function} ({types});

-- A session that has one of the functions locked does not hold up a deploy for long.
-- name: patience
set local lock_timeout = '2s';
