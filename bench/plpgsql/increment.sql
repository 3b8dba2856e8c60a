-- The function of bench/apps/increment inside the server, by hand.
create function increment(of_key integer) returns integer language plpgsql as $$
declare
    found integer;
begin
    select value into found from counters where key = of_key;
    found := coalesce(found, 0) + 1;
    insert into counters (key, value) values (of_key, found)
    on conflict (key) do update set value = excluded.value;
    return found;
end
$$;
