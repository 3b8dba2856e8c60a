-- Places in 1/10,000 of a degree from the corner of the region, prices in cents, ratings in tenths.
create table hotels (
    hotel_id integer primary key,
    name text not null,
    lat integer not null,
    lon integer not null,
    price integer not null,
    rating integer not null
);
create index hotels_by_place on hotels (lat, lon);

create table rooms (
    hotel_id integer not null,
    night integer not null,
    free integer not null,
    primary key (hotel_id, night)
) without rowid;

create table season (
    year integer primary key,
    first_night integer not null,
    last_night integer not null
);

create table reservations (
    reservation_id integer primary key,
    hotel_id integer not null,
    user_id integer not null,
    first_night integer not null,
    nights integer not null
);
