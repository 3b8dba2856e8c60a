-- The tables and data of bench/apps/shop, for PostgreSQL.
create table items (
    item_id integer primary key,
    name text not null,
    description text not null,
    cost integer not null,
    inventory integer not null
);
create table cart (
    user_id integer not null,
    item_id integer not null,
    quantity integer not null,
    cost integer not null,
    primary key (user_id, item_id)
);
create table orders (
    order_id bigint generated always as identity primary key,
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
insert into items (item_id, name, description, cost, inventory)
select n,
       chr(97 + n % 26) || chr(97 + n / 26 % 26) ||
           case n % 3 when 0 then ' Candle Holder ' when 1 then ' Hairdryer ' else ' Watch ' end || n,
       'Item ' || n || ' of the catalogue, made to last, and delivered to your door in a plain box.',
       100 + n * 37 % 9900,
       1000000000
from generate_series(1, 100000) as n;
create index items_by_name on items (name);
insert into cart (user_id, item_id, quantity, cost)
select u, item_id, 1 + (u + l) % 3, items.cost
from generate_series(1, 10000) as u cross join generate_series(1, 5) as l
join items on item_id = (u * 7919 + l * 31337) % 100000 + 1;
vacuum analyze;
