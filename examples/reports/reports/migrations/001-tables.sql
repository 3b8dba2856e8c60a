-- Money is in cents everywhere. Days are those of the shop, not of Greenwich.

create table sales (
    item  text not null,
    cents integer not null,
    day   date not null
);

create index sales_by_day on sales (day);

create table reports (
    day    date primary key,
    pieces integer not null,
    cents  integer not null
);
