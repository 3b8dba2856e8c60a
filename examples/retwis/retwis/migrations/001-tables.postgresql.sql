create table posts (
    user_id integer not null,
    post_id integer not null,                        -- counts the posts of one user
    at      timestamptz not null,
    text    text not null,
    primary key (user_id, post_id)
);

create table followees (
    user_id     integer not null,
    followee_id integer not null,
    primary key (user_id, followee_id)
);
