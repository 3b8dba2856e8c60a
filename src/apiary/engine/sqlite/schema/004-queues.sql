-- Queues that an app declares. A call that waits in one has its name; of the calls with one `share`, each waits for those
-- before it. A workflow (its `epoch` is not 0) that waits for its turn has no version: it gets that when it begins.
alter table apiary_queue add column queue text not null default '';
alter table apiary_queue add column share text not null default '';
alter table apiary_queue add column priority integer not null default 0;
alter table apiary_queue add column unique_key text;

-- Its time was given, by whoever left it there. What was not delayed is due, whatever the clock says meanwhile.
alter table apiary_queue add column delayed integer not null default 0;

drop index apiary_queue_due;

create index apiary_queue_due on apiary_queue (due) where version is not null;

create index apiary_queue_waiting on apiary_queue (queue, share, priority, delayed, due, id) where version is null;

-- The workflows of queues that have begun.
create index apiary_queue_begun on apiary_queue (queue, id) where version is not null and queue <> '';

-- While a call of a function waits under such a name, there is no other one.
create unique index apiary_queue_unique on apiary_queue (function, unique_key) where unique_key is not null;

-- The queues from which nothing is begun.
create table apiary_paused (
    queue text primary key
) without rowid;

-- How many calls of a queue with a rate were let begin when (seconds since 1970), as long as that counts.
create table apiary_admitted (
    queue text not null,
    at real not null,
    calls integer not null
);

create index apiary_admitted_at on apiary_admitted (queue, at);
