create table counters (name text primary key, value integer not null);
create table effects (id integer primary key, key text not null);
create table kept (key text not null, value integer not null, text text);
