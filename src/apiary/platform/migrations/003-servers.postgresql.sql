-- Deployments get an identity and the server that sees to them, because several servers may share the registry. Its
-- phase is `loading` while all of them load the version, and `migrating` from the moment in which it may migrate.
alter table deployments add column id text not null default '';
alter table deployments add column server text not null default '';
alter table deployments add column phase text not null default 'migrating';

-- Tells every server, by the commit of a change, to look at what they share.
create function tell_servers() returns trigger language plpgsql as $$
begin
    perform pg_catalog.pg_notify('apiary', 'registry');
    return null;
end
$$;

create trigger tell_servers after insert or update or delete on deployments
for each statement execute function tell_servers();

create trigger tell_servers after insert or update or delete on activations
for each statement execute function tell_servers();

create trigger tell_servers after insert or update or delete on keys
for each statement execute function tell_servers();
