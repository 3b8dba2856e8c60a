create table notes (
    id integer primary key,
    text text not null,
    at timestamp not null
);
