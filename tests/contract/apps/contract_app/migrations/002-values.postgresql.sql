create table portable (
    id integer primary key,
    an_integer bigint,
    a_float double precision,
    a_text text,
    some_bytes bytea,
    a_bool boolean,
    a_date date,
    a_time time,
    a_naive_time timestamp,
    an_instant timestamptz,
    a_decimal numeric,
    an_id uuid,
    a_document json
);

-- What only PostgreSQL has.

create type mood as enum ('sad', 'so so', 'happy');

create type point_of_view as (who text, how mood);

create domain percentage as integer check (value between 0 and 100);

create domain consent as boolean;

create domain moment as timestamptz;

create domain tags as text[];

create function write_note(id integer) returns integer language sql as $$
    insert into notes (id, note) values (id, 'written by a function') returning id
$$;
