create table counters (name text primary key, value bigint not null check (value >= 0));

create table parents (id integer primary key);

create table children (
    id integer primary key,
    parent integer not null references parents (id) deferrable initially deferred
);

create table notes (id integer primary key, note text);

create table doctors (name text primary key, on_call boolean not null);
