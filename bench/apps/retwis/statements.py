"""The SQL of the retwis app."""

LOAD_FOLLOWEES = """
    insert into followees (user_id, followee_id)
    with recursive
        users (u) as (select cast(:first as integer) union all select u + 1 from users where u < :last),
        numbers (n) as (select 1 union all select n + 1 from numbers where n < 50)
    select u, (u + n * 19) % 1000 + 1 from users cross join numbers
"""
LOAD_POSTS = """
    insert into posts (post_id, user_id, at, text)
    with recursive
        users (u) as (select cast(:first as integer) union all select u + 1 from users where u < :last),
        numbers (n) as (select 1 union all select n + 1 from numbers where n < 11)
    select (u - 1) * 11 + n, u, 1700000000.0 + n * 1000 + u, 'post ' || n || ' of user ' || u || ' about the hive'
    from users cross join numbers
"""
FOLLOWEES = "select followee_id from followees where user_id = :user"
LATEST = "select post_id, user_id, at, text from posts where user_id = :user order by at desc limit 10"
ADD_POST = "insert into posts (user_id, at, text) values (:user, :at, :text) returning post_id"
EFFECTS = "select count(*) from posts"
