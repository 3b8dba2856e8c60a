-- What refresh_offers has found for the cart of each user.

create table offers (
    user_id integer not null,
    item_id integer not null references items (item_id),
    primary key (user_id, item_id)
);
