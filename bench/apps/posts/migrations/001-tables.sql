create table posts (id integer primary key, author text not null, body text not null, public integer not null);
create table copies (id integer primary key, post integer not null, body text not null);
create index copies_post on copies (post);
