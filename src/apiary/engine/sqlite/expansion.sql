-- The file beside an app's own in which its effects lie taken apart. It can be made again at any time.

-- name: is_present
select user_version = 2 from pragma_user_version;

-- How far the effects are taken apart, and a digest of the last: another one there means another file.
-- name: create_progress
create table progress (one integer primary key check (one = 1), number integer not null, digest blob not null);

-- Where effects come from. `left_out`: rows written that were too many to keep; -1: all that a query read.
-- name: create_sources
create table sources (effect integer primary key, call integer, migration text, left_out integer not null);

-- name: create_sources_of_calls
create unique index sources_of_calls on sources (call);

-- name: create_writes
create table writes (
    effect integer not null,
    number integer not null,
    table_name text,
    key text,
    operation text not null,
    before text,
    after text,
    primary key (effect, number)
) without rowid;

-- name: create_writes_of_rows
create index writes_of_rows on writes (table_name, key, effect);

-- name: create_texts
create table texts (term integer primary key, sql text not null, columns text not null, types text not null);

-- The statements that ran, with their parameters and the rows that they gave; `count`: how many, or how many they changed. With an `error`, they failed.
-- name: create_statements
create table statements (
    effect integer not null,
    number integer not null,
    term integer not null,
    parameters text,
    rows text,
    count integer not null,
    error text,
    primary key (effect, number)
) without rowid;

-- The rows of tables that statements read. Without a `key` it is not known which rows of the table those were.
-- name: create_reads
create table reads (
    effect integer not null,
    number integer not null,
    place integer not null,
    table_name text not null,
    key text,
    row text,
    primary key (effect, number, place)
) without rowid;

-- name: create_reads_of_rows
create index reads_of_rows on reads (table_name, key, effect);

-- The random bytes that calls drew.
-- name: create_drawn
create table drawn (effect integer not null, number integer not null, bytes blob not null, primary key (effect, number))
without rowid;

-- name: create_progress_row
insert into progress (one, number, digest) values (1, 0, x'');

-- name: drop_all
drop table if exists progress; drop table if exists sources; drop table if exists writes;
drop table if exists texts;
drop table if exists statements; drop table if exists reads; drop table if exists drawn;

-- name: set_schema_number
pragma user_version = 2;

-- name: progress
select number, digest from progress;

-- name: insert_source
insert into sources (effect, call, migration, left_out) values (?, ?, ?, ?);

-- name: insert_write
insert into writes (effect, number, table_name, key, operation, before, after) values (?, ?, ?, ?, ?, ?, ?);

-- name: insert_text
insert into texts (term, sql, columns, types) values (?, ?, ?, ?) on conflict do nothing;

-- name: insert_statement
insert into statements (effect, number, term, parameters, rows, count, error) values (?, ?, ?, ?, ?, ?, ?);

-- name: insert_read
insert into reads (effect, number, place, table_name, key, row) values (?, ?, ?, ?, ?, ?);

-- name: insert_drawn
insert into drawn (effect, number, bytes) values (?, ?, ?);

-- name: update_progress
update progress set number = ?, digest = ?;

-- In the app's file:
-- name: effects_after
select number, call, migration, effects from apiary_effects where number > ? order by number limit ?;

-- name: effect
select effects from apiary_effects where number = ?;

-- name: term
select term from apiary_terms where id = ?;
