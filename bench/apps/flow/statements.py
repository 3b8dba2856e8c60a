"""The SQL of the flow app."""

LOAD_ITEMS = """
    insert into items (item_id, cost)
    with recursive numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)
    select n, 100 + n * 37 % 9900 from numbers
"""
LOAD_ACCOUNTS = """
    insert into accounts (account_id, spent)
    with recursive numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)
    select n, 0 from numbers
"""
COST = "select cost from items where item_id = :item"
SPEND = "update accounts set spent = spent + :cost where account_id = :account"
ADD_ENTRY = """
    insert into entries (account_id, item_id, cost, number, steps)
    values (:account, :item, :cost, :number, :steps)
"""
EFFECTS = "select count(*) from entries where number = steps"
# What accounts have spent and no entry tells, or the other way around; and steps of workflows that came once too often
# or never, as far as counts can tell: each number of step has been taken by as many workflows.
VIOLATIONS = """
    select abs((select coalesce(sum(spent), 0) from accounts) - (select coalesce(sum(cost), 0) from entries))
         + (select coalesce(max(taken) - min(taken), 0)
            from (select count(*) as taken from entries where steps > 1 group by number) as by_number)
"""
