"""The SQL of the increment app."""

LOAD = """
    insert into counters (key, value)
    with recursive numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)
    select n, 0 from numbers
"""
READ = "select value from counters where key = :key"
WRITE = """
    insert into counters (key, value) values (:key, :value)
    on conflict (key) do update set value = excluded.value
"""
ADD = """
    insert into counters (key, value) values (:key, 1)
    on conflict (key) do update set value = counters.value + 1 returning value
"""
EFFECTS = "select coalesce(sum(value), 0) from counters"
