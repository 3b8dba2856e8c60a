-- The log: one row a call. `seq` is the order of commits. Times in microseconds since 1970 (UTC).
create table apiary_calls (
    seq integer primary key,
    id blob not null,
    function text not null,
    kind text not null,
    version text not null,
    caller text not null,
    attempt integer not null,
    started integer not null,
    duration integer not null,
    status text not null,
    input text not null,
    output text,
    error text,
    lines text,
    nested text,
    parent blob,
    key text
);

-- Exactly once: a call has one outcome. An attempt that the platform stopped is none, so it may be followed by another.
create unique index apiary_calls_id on apiary_calls (id) where status <> 'stopped';

create index apiary_calls_stopped on apiary_calls (id) where status = 'stopped';

-- Exactly once: an idempotency key has one outcome, for ever.
create unique index apiary_calls_key on apiary_calls (key) where key is not null;

create index apiary_calls_parent on apiary_calls (parent) where parent is not null;

-- Calls that a transaction put here by its commit. A row leaves in the transaction that records its outcome.
create table apiary_queue (
    id blob primary key,
    function text not null,
    input text not null,
    caller text not null,
    parent blob,
    due integer not null,
    attempts integer not null default 0
) without rowid;

create index apiary_queue_due on apiary_queue (due);

-- The app's own migrations that were applied here.
create table apiary_migrations (
    name text primary key,
    checksum text not null,
    version text not null,
    applied integer not null
) without rowid;
