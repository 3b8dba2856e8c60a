create table effects (key text not null, n integer not null);
