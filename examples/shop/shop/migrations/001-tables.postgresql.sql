-- Money is in cents everywhere.

create table items (
    item_id     integer primary key,
    sku         text not null unique,
    name        text not null,
    description text not null,
    category    text not null,                       -- the first of its tags
    tags        json not null,
    cost        integer not null check (cost > 0),
    inventory   integer not null check (inventory >= 0)
);

create index items_by_name on items (lower(name), cost);
create index items_by_category on items (category, cost);

create table cart (
    user_id  integer not null,
    item_id  integer not null references items (item_id),
    quantity integer not null check (quantity > 0),
    cost     integer not null,                       -- of one piece, when it was put into the cart
    primary key (user_id, item_id)
);

create table orders (
    order_id  bigint primary key generated always as identity,
    user_id   integer not null,
    cost      integer not null,
    status    text not null check (status in ('placed', 'reserved', 'paid', 'released')),
    receipt   text,                                  -- of the payment, once there is one
    placed_at timestamptz not null
);

create index orders_by_user on orders (user_id, order_id);

create table order_lines (
    order_id bigint not null references orders (order_id),
    item_id  integer not null references items (item_id),
    quantity integer not null check (quantity > 0),
    cost     integer not null,
    primary key (order_id, item_id)
);
