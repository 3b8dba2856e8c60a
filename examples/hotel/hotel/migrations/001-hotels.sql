-- Hotels, how many of their rooms are free each night, and who has booked what.
create table hotels (
    hotel_id integer primary key,
    name text not null,
    cents integer not null check (cents > 0)
);

create table rooms (
    hotel_id integer not null references hotels (hotel_id),
    night date not null,
    free integer not null check (free >= 0),
    primary key (hotel_id, night)
);

create table reservations (
    reservation_id text primary key,
    hotel_id integer not null references hotels (hotel_id),
    guest text not null,
    first_night date not null,
    nights integer not null check (nights > 0),
    cents integer not null,
    status text not null
);
