create table marks (flow text not null, n integer not null, mark text not null, primary key (flow, n));
create table stock (flow text not null, item text not null, taken integer not null, primary key (flow, item));
create table fibonacci (flow text not null, n integer not null, value integer not null, primary key (flow, n));
