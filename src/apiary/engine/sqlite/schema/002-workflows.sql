-- Workflows. A step is a call whose `parent` is its workflow; a workflow that has begun and not ended is a row of the
-- queue that has a version. Its columns are those of `Instance` (runtime/session.py).
alter table apiary_calls add column step integer;

-- Exactly once: a step of a workflow has one outcome.
create unique index apiary_calls_step on apiary_calls (parent, step) where step is not null and status <> 'stopped';

-- The workflows that have ended, for those who list them.
create index apiary_calls_workflows on apiary_calls (id) where kind = 'workflow' and status <> 'stopped';

alter table apiary_queue add column version text;
alter table apiary_queue add column roles text;
alter table apiary_queue add column key text;
alter table apiary_queue add column step integer;
alter table apiary_queue add column started integer;
alter table apiary_queue add column epoch integer not null default 0;
alter table apiary_queue add column first integer not null default 0;
alter table apiary_queue add column issued integer not null default 0;
alter table apiary_queue add column waits integer;
alter table apiary_queue add column acting integer not null default 0;
alter table apiary_queue add column deadline integer not null default 9223372036854775807;
alter table apiary_queue add column state text not null default '';
alter table apiary_queue add column problem text;
alter table apiary_queue add column topic text;

-- An idempotency key begins one workflow.
create unique index apiary_queue_key on apiary_queue (key) where key is not null;

create index apiary_queue_acting on apiary_queue (id) where acting = 1;

-- Messages that a workflow has not received yet. A sender leaves each once.
create table apiary_messages (
    seq integer primary key,
    id blob not null unique,
    workflow blob not null,
    topic text not null,
    value text not null
);

create index apiary_messages_topic on apiary_messages (workflow, topic, seq);

-- What workflows let everybody read.
create table apiary_published (
    workflow blob not null,
    name text not null,
    value text not null,
    primary key (workflow, name)
) without rowid;

-- Until when (seconds since 1970) all times of a workflow that begins by the clock are done.
create table apiary_schedules (
    function text primary key,
    done real not null
) without rowid;
