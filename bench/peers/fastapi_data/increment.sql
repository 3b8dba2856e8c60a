-- The tables and data of bench/apps/increment, for PostgreSQL.
create table counters (
    key integer primary key,
    value integer not null
);
insert into counters (key, value) select n, 0 from generate_series(1, 100000) as n;
vacuum analyze;
