-- The checkout of bench/apps/shop inside the server, by hand: the same 17 statements for a cart of 5 lines.
create function checkout(of_user integer) returns json language plpgsql as $$
declare
    total integer := 0;
    lines cart[] := array(select c from cart as c where user_id = of_user order by item_id);
    line cart;
    item record;
    new_order bigint;
begin
    if cardinality(lines) = 0 then
        raise exception 'the cart is empty';
    end if;
    foreach line in array lines loop
        total := total + line.quantity * line.cost;
    end loop;
    insert into orders (user_id, cost, status) values (of_user, total, 'confirmed') returning order_id into new_order;
    foreach line in array lines loop
        select cost, inventory into item from items where item_id = line.item_id;
        update items set inventory = inventory - line.quantity
        where item_id = line.item_id and inventory >= line.quantity;
        if not found then
            raise exception 'out of stock';
        end if;
        insert into order_lines (order_id, item_id, quantity, cost)
        values (new_order, line.item_id, line.quantity, item.cost);
    end loop;
    return json_build_object('order_id', new_order, 'cost', total);
end
$$;
