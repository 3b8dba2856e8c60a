create table posts (
    post_id integer primary key,
    user_id integer not null,
    at real not null,
    text text not null
);
create index posts_by_user on posts (user_id, at);

create table followees (
    user_id integer not null,
    followee_id integer not null,
    primary key (user_id, followee_id)
) without rowid;
