create table effects (id bigint generated always as identity primary key, key text not null, call text not null);
create table rows (id integer primary key, value integer not null);
insert into rows (id, value) values (1, 0), (2, 0);
