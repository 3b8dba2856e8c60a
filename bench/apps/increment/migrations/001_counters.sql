create table counters (
    key integer primary key,
    value integer not null
);
