-- Statements with which servers that share a database know of each other. All times are those of its clock.

-- name: join
insert into apiary.servers (id, description, lease) values ($1::uuid, $2::text, make_interval(secs => $3::float8));

-- A sign of life, and what there is to know. `silent`: leases that have run out while this server gave signs of life
-- all the time. `lost`: whether somebody left something.
-- `leaving`: lost, but hosts of them may still end what they began. `taken`: apps whose queue another server runs.
-- name: beat
with own as (
    update apiary.servers
    set since = case when beat + lease < clock_timestamp() then clock_timestamp() else since end,
        beat = clock_timestamp()
    where id = $1::uuid and lost is null
    returning since
), others as (
    select * from apiary.servers where id <> $1::uuid
)
select exists (select from own) as alive,
       array(select id::text from others where lost is null) as others,
       array(select id::text from apiary.acting where lost is not null) as leaving,
       array(select q.app from apiary.queues q join apiary.acting a on a.id = q.server where a.id <> $1::uuid) as taken,
       array(select s.id from others s, own where s.lost is null and s.beat + s.lease < clock_timestamp()
             and own.since + s.lease < clock_timestamp()) as silent,
       exists (select from others where lost is not null)
       or exists (select from apiary.hosts where lost is not null) as lost;

-- Declares servers lost, unless they have given a sign of life meanwhile, or another server was faster.
-- name: declare_lost
update apiary.servers set lost = clock_timestamp()
where id = any($1::uuid[]) and lost is null and beat + lease < clock_timestamp()
returning id, description;

-- The hosts that are gone, and how many of their sessions were still there and are being ended.
-- name: left
select h.id, h.app, h.ended is not null as ended, count(a.pid) filter (where pg_terminate_backend(a.pid)) as sessions
from apiary.hosts h
left join apiary.servers s on s.id = h.server
left join pg_stat_activity a on a.datname = current_database() and a.application_name = 'apiary host ' || h.id
                            and pg_has_role(a.usesysid, 'member')
where h.lost is not null or s.lost is not null or s.id is null
group by h.id
order by h.app, h.id;

-- name: mark_ended
update apiary.hosts set ended = clock_timestamp() where id = any($1::uuid[]);

-- name: listen
listen apiary;

-- A host of a server that is not lost; the lock makes it wait for one that is just declaring it lost.
-- name: add_host
with own as (select from apiary.servers where id = $2::uuid and lost is null for share)
insert into apiary.hosts (id, server, app, version)
select $1::uuid, $2::uuid, $3::text, $4::text from own
returning id;

-- name: end_host
update apiary.hosts set lost = clock_timestamp() where id = $1::uuid
returning pg_notify('apiary', 'members');

-- name: forget
delete from apiary.hosts where id = any($1::uuid[]) returning id;

-- Servers that are lost and have left nothing.
-- name: forget_servers
delete from apiary.servers s
where s.lost is not null and not exists (select from apiary.hosts h where h.server = s.id)
returning id;

-- name: leave
update apiary.servers set lost = clock_timestamp() where id = $1::uuid
returning pg_notify('apiary', 'members');

-- name: acts
select id from apiary.acting where id = $1::uuid;

-- A server that is lost cannot follow any more.
-- name: acknowledge
insert into apiary.acknowledgements (deployment, server, state, problem)
select $1::text, s.id, $3::text, $4::text from apiary.servers s where s.id = $2::uuid
on conflict (deployment, server) do update set state = excluded.state, problem = excluded.problem
returning pg_notify('apiary', 'deployment');

-- The others that have not come to this state yet, or cannot. Those for which the deployment is over, because somebody
-- took the server of it for lost, are not waited for: what it does next is refused.
-- name: awaited
select s.description, a.problem
from apiary.acting s
left join apiary.acknowledgements a on a.deployment = $1::text and a.server = s.id
where s.id <> $2::uuid
  and (a.state is null or a.state not in ($3::text, 'done') or a.problem is not null);

-- name: forget_acknowledgements
delete from apiary.acknowledgements where deployment = $1::text returning deployment;

-- name: claim_queue
insert into apiary.queues as q (app, server) values ($1::text, $2::uuid)
on conflict (app) do update set server = excluded.server
where q.server = excluded.server or not exists (select from apiary.acting a where a.id = q.server)
returning app;

-- name: release_queue
delete from apiary.queues where app = $1::text and server = $2::uuid returning app;

-- name: listed
select s.id::text as id, s.description, to_json(s.started) as started, to_json(s.lost) as lost,
       extract(epoch from clock_timestamp() - s.beat)::float8 as silent_seconds,
       coalesce((select json_agg(json_build_object('id', h.id, 'app', h.app, 'version', h.version,
                                                   'started', h.started, 'lost', h.lost) order by h.app, h.started)
                 from apiary.hosts h where h.server = s.id), '[]') as hosts
from apiary.servers s order by s.started, s.id;
