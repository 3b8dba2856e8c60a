create table counters (
    key integer primary key,
    value bigint not null
);
