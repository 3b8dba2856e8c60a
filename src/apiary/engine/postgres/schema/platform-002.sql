-- The servers that share this database, and their hosts. An identity is that of one process, and never used again.

-- A server updates its row about every second. What it leaves of the row stays on its page, and is removed from there.
-- `since`: from when on its signs of life have had no gap. Only such a server may find that another one is silent, so
-- that nobody is lost because the database stood still.
create table apiary.servers (
    id uuid primary key,
    description text not null,
    started timestamptz not null default clock_timestamp(),
    lease interval not null,
    beat timestamptz not null default clock_timestamp(),
    since timestamptz not null default clock_timestamp(),
    lost timestamptz
) with (fillfactor = 40);

-- A host that has ended, or whose server is lost, stays until another one has taken over what it left. `ended`: none
-- of its sessions was there any more, so that nothing it began can be committed.
create table apiary.hosts (
    id uuid primary key,
    server uuid not null,
    app text not null,
    version text not null,
    started timestamptz not null default clock_timestamp(),
    lost timestamptz,
    ended timestamptz
);

-- The servers that may do something yet: who lives, and who is lost but has hosts that can still commit.
create view apiary.acting as
select s.id, s.description, s.lost from apiary.servers s
where s.lost is null or exists (select from apiary.hosts h where h.server = s.id and h.ended is null);

-- How far a server has followed the deployment of another one. `problem`: why it cannot.
create table apiary.acknowledgements (
    deployment text not null,
    server uuid not null references apiary.servers on delete cascade,
    state text not null,
    problem text,
    primary key (deployment, server)
);

-- Which server's host runs the queue of an app; as soon as that server does not act any more, another one's may.
create table apiary.queues (
    app text primary key,
    server uuid not null
);

revoke all on apiary.servers, apiary.hosts, apiary.acting, apiary.acknowledgements, apiary.queues from public;

-- Whether a host still counts. It asks whenever it connects, after its connection has its name: a host that is found
-- to count here is among the sessions that are ended when it is lost.
create function apiary.counts(host uuid) returns boolean
language sql volatile security definer set search_path = pg_catalog, pg_temp
as $$
    select exists (select from apiary.hosts h join apiary.servers s on s.id = h.server
                   where h.id = host and h.lost is null and s.lost is null)
$$;
