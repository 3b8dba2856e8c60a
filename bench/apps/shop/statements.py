"""The SQL of the shop app."""

LOAD_ITEMS = """
    insert into items (item_id, name, description, cost, inventory)
    with recursive numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)
    select n,
           substr('abcdefghijklmnopqrstuvwxyz', 1 + n % 26, 1) ||
               substr('abcdefghijklmnopqrstuvwxyz', 1 + n / 26 % 26, 1) ||
               case n % 3 when 0 then ' Candle Holder ' when 1 then ' Hairdryer ' else ' Watch ' end || n,
           'Item ' || n || ' of the catalogue, made to last, and delivered to your door in a plain box.',
           100 + n * 37 % 9900,
           1000000000
    from numbers
"""
LOAD_CARTS = """
    insert into cart (user_id, item_id, quantity, cost)
    with recursive
        users (u) as (select cast(:first as integer) union all select u + 1 from users where u < :last),
        lines (l) as (select 1 union all select l + 1 from lines where l < 5)
    select u, item_id, 1 + (u + l) % 3, items.cost
    from users cross join lines join items on item_id = (u * 7919 + l * 31337) % 100000 + 1
"""
BROWSE = """
    select item_id, name, cost from items
    where name >= :prefix and name < :prefix || '~' and cost <= :top
    order by name limit 8
"""
ITEM_COST = "select cost from items where item_id = :item"
SET_LINE = """
    insert into cart (user_id, item_id, quantity, cost) values (:user, :item, :quantity, :cost)
    on conflict (user_id, item_id) do update set quantity = excluded.quantity, cost = excluded.cost
"""
CART = "select item_id, quantity, cost from cart where user_id = :user order by item_id"
ADD_ORDER = "insert into orders (user_id, cost, status) values (:user, :cost, 'confirmed') returning order_id"
ITEM = "select cost, inventory from items where item_id = :item"
RESERVE = "update items set inventory = inventory - :quantity where item_id = :item and inventory >= :quantity"
ADD_LINE = "insert into order_lines (order_id, item_id, quantity, cost) values (:order, :item, :quantity, :cost)"
EFFECTS = "select count(*) from orders"
