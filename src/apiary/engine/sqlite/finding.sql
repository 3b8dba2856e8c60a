-- An index of calls beside the app's own file: a narrow row each, and the words in what went in and came out.

-- `seq` and `id` of the last call that is in the index: another id there means another file.
-- name: create_found
create table if not exists found (one integer primary key check (one = 1), seq integer not null, id blob not null);

-- name: create_called
create table if not exists called (
    seq integer primary key, function text not null, caller text not null, status text not null, started integer not null
);

-- Only which words are in which calls; the texts stay where they are.
-- name: create_said
create virtual table if not exists said using fts5 (words, content = '', detail = none, columnsize = 0);

-- name: found
select seq, id from found;

-- name: empty
drop table if exists found; drop table if exists called; drop table if exists said;

-- name: insert_called
insert into called (seq, function, caller, status, started) values (?, ?, ?, ?, ?);

-- name: insert_said
insert into said (rowid, words) values (?, ?);

-- name: set_found
insert into found (one, seq, id) values (1, ?, ?) on conflict (one) do update set seq = excluded.seq, id = excluded.id;

-- In the app's file. What JSON writes as \n would join the words on its sides.
-- name: calls_after
select seq, id, function, caller, status, started,
       replace(replace(concat_ws(' ', substr(input, 1, :most), substr(output, 1, :most), substr(error, 1, :most),
                                 substr(lines, 1, :most)), '\n', ' '), '\t', ' ') as words
from apiary_calls where seq > :seq order by seq limit :limit;

-- name: id_of
select id from apiary_calls where seq = ?;
