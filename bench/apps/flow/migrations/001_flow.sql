-- Costs in cents.
create table items (
    item_id integer primary key,
    cost integer not null
);

create table accounts (
    account_id integer primary key,
    spent integer not null
);

-- One row a step: the step's number in its workflow, and how many steps that has.
create table entries (
    entry_id integer primary key,
    account_id integer not null,
    item_id integer not null,
    cost integer not null,
    number integer not null,
    steps integer not null
);
