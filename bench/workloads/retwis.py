"""Retwis: timelines 90 %, posts 10 %; 1,000 users, 50 followees and 11 posts each. And timelines alone.

A timeline reads the followees (1 statement, 50 rows), then the 10 latest posts of each (50 statements, 500 rows), and
answers all of them merged, newest first.
"""

from dataclasses import replace

from bench.mix import Key, Load, Operation, Word, Workload

USERS = 1_000
TEXTS = (
    "the hive is humming this morning",
    "clover on the south slope is in flower",
    "two frames of honey and a new queen",
    "rain again so everyone stays inside",
)
LOAD = (Load("load_users", rows=USERS, batch=250),)

TIMELINE = Operation("timeline", 0.9, draws={"user": Key(USERS)}, sends={"user": "user"}, reads_only=True)
POST = Operation("post", 0.1, draws={"user": Key(USERS), "text": Word(TEXTS)}, sends={"user": "user", "text": "text"})

WORKLOAD = Workload(
    name="retwis",
    app="retwis",
    about="timeline 90 % (51 statements, 550 rows), post 10 %; 1,000 users",
    operations=(TIMELINE, POST),
    load=LOAD,
)
TIMELINES = Workload(
    name="timelines",
    app="retwis",
    about="timelines alone (51 statements, 550 rows); 1,000 users",
    operations=(replace(TIMELINE, share=1.0),),
    load=LOAD,
)
