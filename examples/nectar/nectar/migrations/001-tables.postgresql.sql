create table users (
    user_id  integer primary key generated always as identity,
    handle   text not null unique,
    password text not null,                          -- scrypt, see passwords.py
    joined   timestamptz not null
);

create table sessions (
    token_hash text primary key,                     -- SHA-256: whoever reads this table cannot sign in with it
    user_id    integer not null references users (user_id),
    expires    timestamptz not null
);

create index sessions_by_user on sessions (user_id, expires);

create table posts (
    post_id bigint primary key generated always as identity,  -- later posts have higher numbers
    user_id integer not null references users (user_id),
    text    text not null,
    at      timestamptz not null
);

create index posts_by_user on posts (user_id, post_id);

create table follows (
    follower_id integer not null references users (user_id),
    followee_id integer not null references users (user_id),
    primary key (follower_id, followee_id)
);

create index follows_by_followee on follows (followee_id);

create table likes (
    post_id bigint not null references posts (post_id),
    user_id integer not null references users (user_id),
    primary key (post_id, user_id)
);

-- Posts as readers see them.
create view feed as
    select post_id, user_id, handle, text, at,
           (select count(*) from likes where likes.post_id = posts.post_id) as likes
    from posts join users using (user_id);
