create table items (
    item_id integer primary key,
    name text not null,
    description text not null,
    cost integer not null,
    inventory integer not null
);
create index items_by_name on items (name);

create table cart (
    user_id integer not null,
    item_id integer not null,
    quantity integer not null,
    cost integer not null,
    primary key (user_id, item_id)
);

create table orders (
    order_id bigint primary key generated always as identity,
    user_id integer not null,
    cost integer not null,
    status text not null
);

create table order_lines (
    order_id bigint not null,
    item_id integer not null,
    quantity integer not null,
    cost integer not null,
    primary key (order_id, item_id)
);
