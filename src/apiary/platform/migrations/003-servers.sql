-- Deployments get an identity and the server that sees to them, because several servers may share the registry. Its
-- phase is `loading` while all of them load the version, and `migrating` from the moment in which it may migrate.
alter table deployments add column id text not null default '';
alter table deployments add column server text not null default '';
alter table deployments add column phase text not null default 'migrating';
