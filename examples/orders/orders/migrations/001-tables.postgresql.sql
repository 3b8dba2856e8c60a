-- Money is in cents everywhere.

create table stock (
    warehouse text not null,
    item      text not null,
    count     integer not null,
    primary key (warehouse, item)
);

create table accounts (
    account text primary key,
    cents   integer not null
);

create table orders (
    order_id text primary key,                       -- the id of its workflow
    account  text not null,
    cents    integer not null,
    finished timestamptz not null
);
