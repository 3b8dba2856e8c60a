"""The SQL of the TPC-C app. The transactions are those of clauses 2.4 (new order) and 2.5 (payment)."""

DISTRICTS = range(1, 11)
SYLLABLES = ("BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING")
LETTERS = "'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz'"
NUMBERS = "numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)"
ADDRESS = "'1 Hive Street', 'Apiary Court', 'Beetown', 'HO', '123411111'"


def syllable(digit: str) -> str:
    cases = " ".join(f"when {number} then '{text}'" for number, text in enumerate(SYLLABLES))
    return f"case {digit} {cases} end"


LOAD_WAREHOUSES = f"""
    insert into warehouse (w_id, w_name, w_street_1, w_street_2, w_city, w_state, w_zip, w_tax, w_ytd)
    with recursive {NUMBERS}
    select n, 'W' || n, {ADDRESS}, n * 311 % 2001, 30000000 from numbers
"""
LOAD_DISTRICTS = f"""
    insert into district (d_w_id, d_id, d_name, d_street_1, d_street_2, d_city, d_state, d_zip,
                          d_tax, d_ytd, d_next_o_id)
    with recursive {NUMBERS}, districts (d) as (select 1 union all select d + 1 from districts where d < 10)
    select n, d, 'D' || d, {ADDRESS}, (n * 10 + d) * 173 % 2001, 3000000, 1 from numbers cross join districts
"""
LOAD_ITEMS = f"""
    insert into item (i_id, i_im_id, i_name, i_price, i_data)
    with recursive {NUMBERS}
    select n, 1 + n * 7 % 10000, substr({LETTERS}, 1 + n % 26, 14) || n, 100 + n * 37 % 9901,
           substr({LETTERS}, 1 + n % 20, 30) || case n % 10 when 0 then 'ORIGINAL' else '' end
    from numbers
"""
LOAD_STOCK = f"""
    insert into stock (s_w_id, s_i_id, s_quantity, {", ".join(f"s_dist_{d:02}" for d in DISTRICTS)},
                       s_ytd, s_order_cnt, s_remote_cnt, s_data)
    with recursive {NUMBERS}
    select 1 + (n - 1) / 10000, 1 + (n - 1) % 10000, 10 + n * 13 % 91,
           {", ".join(f"substr({LETTERS}, {d} + n % 16, 24)" for d in DISTRICTS)},
           0, 0, 0, substr({LETTERS}, 1 + n % 20, 30) || case n % 10 when 3 then 'ORIGINAL' else '' end
    from numbers
"""
LOAD_CUSTOMERS = f"""
    insert into customer (c_w_id, c_d_id, c_id, c_first, c_middle, c_last, c_street_1, c_street_2, c_city, c_state,
                          c_zip, c_phone, c_since, c_credit, c_credit_lim, c_discount, c_balance, c_ytd_payment,
                          c_payment_cnt, c_delivery_cnt, c_data)
    with recursive {NUMBERS}
    select 1 + (n - 1) / 30000, 1 + (n - 1) / 3000 % 10, 1 + (n - 1) % 3000,
           substr({LETTERS}, 1 + n * 7 % 26, 8) || n, 'OE',
           {syllable("(n - 1) % 1000 / 100")} || {syllable("(n - 1) % 100 / 10")} || {syllable("(n - 1) % 10")},
           {ADDRESS}, '0123456789012345', 1700000000.0, case n % 10 when 0 then 'BC' else 'GC' end, 5000000,
           n * 41 % 5001, -1000, 1000, 1, 0,
           {" || ".join([LETTERS] * 6)}
    from numbers
"""

WAREHOUSE_TAX = "select w_tax from warehouse where w_id = :warehouse"
NEXT_ORDER = """
    update district set d_next_o_id = d_next_o_id + 1 where d_w_id = :warehouse and d_id = :district
    returning d_next_o_id - 1 as order_id, d_tax
"""
BUYER = """
    select c_discount, c_last, c_credit from customer
    where c_w_id = :warehouse and c_d_id = :district and c_id = :customer
"""
ADD_ORDER = """
    insert into orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local)
    values (:warehouse, :district, :order_id, :customer, :at, :lines, :local)
"""
ADD_NEW_ORDER = "insert into new_order (no_w_id, no_d_id, no_o_id) values (:warehouse, :district, :order_id)"
ITEM = "select i_price, i_name, i_data from item where i_id = :item"
STOCK = {
    district: f"""
    select s_quantity, s_data, s_dist_{district:02} as place from stock where s_w_id = :supplier and s_i_id = :item
    """
    for district in DISTRICTS
}
TAKE_STOCK = """
    update stock set s_quantity = :left, s_ytd = s_ytd + :quantity, s_order_cnt = s_order_cnt + 1,
                     s_remote_cnt = s_remote_cnt + :remote
    where s_w_id = :supplier and s_i_id = :item
"""
ADD_LINE = """
    insert into order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity, ol_amount,
                            ol_dist_info)
    values (:warehouse, :district, :order_id, :number, :item, :supplier, :quantity, :amount, :place)
"""

PAY_WAREHOUSE = """
    update warehouse set w_ytd = w_ytd + :amount where w_id = :warehouse
    returning w_name, w_street_1, w_street_2, w_city, w_state, w_zip
"""
PAY_DISTRICT = """
    update district set d_ytd = d_ytd + :amount where d_w_id = :warehouse and d_id = :district
    returning d_name, d_street_1, d_street_2, d_city, d_state, d_zip
"""
NAMESAKES = """
    select c_id from customer where c_w_id = :warehouse and c_d_id = :district and c_last = :name order by c_first
"""
PAY = """
    update customer set c_balance = c_balance - :amount, c_ytd_payment = c_ytd_payment + :amount,
                        c_payment_cnt = c_payment_cnt + 1
    where c_w_id = :warehouse and c_d_id = :district and c_id = :customer
    returning c_first, c_middle, c_last, c_street_1, c_street_2, c_city, c_state, c_zip, c_phone, c_since, c_credit,
              c_credit_lim, c_discount, c_balance
"""
NOTE_BAD_CREDIT = """
    update customer set c_data = substr(:note || c_data, 1, 500)
    where c_w_id = :warehouse and c_d_id = :district and c_id = :customer
    returning substr(c_data, 1, 200)
"""
ADD_HISTORY = """
    insert into history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data)
    values (:customer, :customer_district, :customer_warehouse, :district, :warehouse, :at, :amount, :data)
"""

# Clause 3.3.2, conditions 1 to 4 and 12 as far as there are no deliveries, and history against the warehouses.
VIOLATIONS = (
    "select count(*) from warehouse where w_ytd <> (select sum(d_ytd) from district where d_w_id = w_id)",
    """
    select count(*) from warehouse
    where w_ytd <> 30000000 + (select coalesce(sum(h_amount), 0) from history where h_w_id = w_id)
    """,
    """
    select count(*) from district where d_next_o_id - 1 <>
        (select coalesce(max(o_id), 0) from orders where o_w_id = d_w_id and o_d_id = d_id)
    """,
    """
    select count(*) from district where d_next_o_id - 1 <>
        (select count(*) from new_order where no_w_id = d_w_id and no_d_id = d_id)
    """,
    """
    select count(*) from district where
        (select coalesce(sum(o_ol_cnt), 0) from orders where o_w_id = d_w_id and o_d_id = d_id) <>
        (select count(*) from order_line where ol_w_id = d_w_id and ol_d_id = d_id)
    """,
    "select count(*) from customer where c_balance + c_ytd_payment <> 0",
)
EFFECTS = "select (select count(*) from orders) + (select count(*) from history)"
