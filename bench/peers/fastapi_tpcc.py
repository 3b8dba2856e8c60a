"""TPC-C's new order and payment in `fastapi_app.py`: the functions and statements of bench/apps/tpcc."""

import time

import asyncpg
from fastapi import APIRouter, HTTPException
from pydantic import BaseModel

from bench.peers.fastapi_pool import read, transact
from bench.workloads.tpcc import DISTRICTS, Wanted, last_name, order_lines, other

router = APIRouter(prefix="/apps/tpcc")

PARTS = 10_000
STOCK = {
    district: f"select s_quantity, s_data, s_dist_{district:02} from stock where s_w_id = $1 and s_i_id = $2"
    for district in range(1, DISTRICTS + 1)
}
VIOLATIONS = """
    select (select count(*) from warehouse where w_ytd <> (select sum(d_ytd) from district where d_w_id = w_id))
         + (select count(*) from warehouse where w_ytd <>
               30000000 + (select coalesce(sum(h_amount), 0) from history where h_w_id = w_id))
         + (select count(*) from district where d_next_o_id - 1 <>
               (select coalesce(max(o_id), 0) from orders where o_w_id = d_w_id and o_d_id = d_id))
         + (select count(*) from district where d_next_o_id - 1 <>
               (select count(*) from new_order where no_w_id = d_w_id and no_d_id = d_id))
         + (select count(*) from district where
               (select coalesce(sum(o_ol_cnt), 0) from orders where o_w_id = d_w_id and o_d_id = d_id) <>
               (select count(*) from order_line where ol_w_id = d_w_id and ol_d_id = d_id))
         + (select count(*) from customer where c_balance + c_ytd_payment <> 0)
"""


class NewOrder(BaseModel):
    warehouse: int
    district: int
    customer: int
    item: int
    count: int


class Line(BaseModel):
    item: int
    name: str
    quantity: int
    stock: int
    kind: str
    price: int
    amount: int


class Order(BaseModel):
    order_id: int
    last_name: str
    credit: str
    total: int
    lines: list[Line]


@router.post("/new_order")
async def new_order(request: NewOrder) -> Order:
    wanted = order_lines(request.warehouse, request.item, request.count)
    return await transact(lambda connection: make_order(connection, request, wanted))


async def make_order(connection: asyncpg.Connection, request: NewOrder, wanted: list[Wanted]) -> Order:
    place = (request.warehouse, request.district)
    warehouse_tax = await connection.fetchval("select w_tax from warehouse where w_id = $1", request.warehouse)
    order_id, district_tax = await connection.fetchrow(
        "update district set d_next_o_id = d_next_o_id + 1 where d_w_id = $1 and d_id = $2 "
        "returning d_next_o_id - 1, d_tax",
        *place,
    )
    buyer = await connection.fetchrow(
        "select c_discount, c_last, c_credit from customer where c_w_id = $1 and c_d_id = $2 and c_id = $3",
        *place,
        request.customer,
    )
    await connection.execute(
        "insert into orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local) "
        "values ($1, $2, $3, $4, $5, $6, $7)",
        *place,
        order_id,
        request.customer,
        time.time(),
        request.count,
        int(all(line.supplier == request.warehouse for line in wanted)),
    )
    await connection.execute("insert into new_order (no_w_id, no_d_id, no_o_id) values ($1, $2, $3)", *place, order_id)
    lines = [await order_line(connection, place, order_id, line) for line in wanted]
    amount = sum(line.amount for line in lines)
    total = amount * (PARTS - buyer["c_discount"]) * (PARTS + warehouse_tax + district_tax) // PARTS**2
    return Order(order_id=order_id, last_name=buyer["c_last"], credit=buyer["c_credit"], total=total, lines=lines)


async def order_line(connection: asyncpg.Connection, place: tuple[int, int], order_id: int, line: Wanted) -> Line:
    _number, item, supplier, quantity = line
    found = await connection.fetchrow("select i_price, i_name, i_data from item where i_id = $1", item)
    if found is None:
        raise HTTPException(409, "item number is not valid")
    price, name, data = found
    stock, stock_data, district_info = await connection.fetchrow(STOCK[place[1]], supplier, item)
    left = stock - quantity if stock >= quantity + 10 else stock - quantity + 91
    await connection.execute(
        "update stock set s_quantity = $1, s_ytd = s_ytd + $2, s_order_cnt = s_order_cnt + 1, "
        "s_remote_cnt = s_remote_cnt + $3 where s_w_id = $4 and s_i_id = $5",
        left,
        quantity,
        int(supplier != place[0]),
        supplier,
        item,
    )
    amount = quantity * price
    await connection.execute(
        "insert into order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, ol_quantity, "
        "ol_amount, ol_dist_info) values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        *place,
        order_id,
        *line,
        amount,
        district_info,
    )
    kind = "B" if "ORIGINAL" in data and "ORIGINAL" in stock_data else "G"
    return Line(item=item, name=name, quantity=quantity, stock=stock, kind=kind, price=price, amount=amount)


class Pay(BaseModel):
    warehouse: int
    district: int
    customer: int
    amount: int
    remote: int
    by: int


class Payment(BaseModel):
    customer: int
    first_name: str
    last_name: str
    credit: str
    balance: int
    data: str | None


@router.post("/payment")
async def payment(request: Pay) -> Payment:
    return await transact(lambda connection: take_payment(connection, request))


async def take_payment(connection: asyncpg.Connection, request: Pay) -> Payment:
    warehouse, district, amount, customer = request.warehouse, request.district, request.amount, request.customer
    theirs = (other(warehouse) if request.remote <= 15 else warehouse, district)
    at = await connection.fetchrow(
        "update warehouse set w_ytd = w_ytd + $2 where w_id = $1 "
        "returning w_name, w_street_1, w_street_2, w_city, w_state, w_zip",
        warehouse,
        amount,
    )
    near = await connection.fetchrow(
        "update district set d_ytd = d_ytd + $3 where d_w_id = $1 and d_id = $2 "
        "returning d_name, d_street_1, d_street_2, d_city, d_state, d_zip",
        warehouse,
        district,
        amount,
    )
    if request.by <= 60:
        namesakes = await connection.fetch(
            "select c_id from customer where c_w_id = $1 and c_d_id = $2 and c_last = $3 order by c_first",
            *theirs,
            last_name(customer % 1000),
        )
        customer = namesakes[(len(namesakes) - 1) // 2]["c_id"]
    payer = await connection.fetchrow(
        "update customer set c_balance = c_balance - $4, c_ytd_payment = c_ytd_payment + $4, "
        "c_payment_cnt = c_payment_cnt + 1 where c_w_id = $1 and c_d_id = $2 and c_id = $3 "
        "returning c_first, c_middle, c_last, c_street_1, c_street_2, c_city, c_state, c_zip, c_phone, c_since, "
        "c_credit, c_credit_lim, c_discount, c_balance",
        *theirs,
        customer,
        amount,
    )
    data = None
    if payer["c_credit"] == "BC":
        data = await connection.fetchval(
            "update customer set c_data = substr($4 || c_data, 1, 500) "
            "where c_w_id = $1 and c_d_id = $2 and c_id = $3 returning substr(c_data, 1, 200)",
            *theirs,
            customer,
            f"{customer} {district} {theirs[0]} {district} {warehouse} {amount} | ",
        )
    await connection.execute(
        "insert into history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, h_amount, h_data) "
        "values ($1, $2, $3, $4, $5, $6, $7, $8)",
        customer,
        district,
        theirs[0],
        district,
        warehouse,
        time.time(),
        amount,
        f"{at['w_name']}    {near['d_name']}",
    )
    return Payment(
        customer=customer,
        first_name=payer["c_first"],
        last_name=payer["c_last"],
        credit=payer["c_credit"],
        balance=payer["c_balance"],
        data=data,
    )


@router.post("/violations")
async def violations() -> int:
    return await read(lambda pool: pool.fetchval(VIOLATIONS))


@router.post("/effects")
async def effects() -> int:
    return await read(
        lambda pool: pool.fetchval("select (select count(*) from orders) + (select count(*) from history)")
    )
