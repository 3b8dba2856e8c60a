"""The SQL of the hotel app."""

LOAD_SEASON = "insert into season (year, first_night, last_night) values (1, 1, 90)"
LOAD_HOTELS = """
    insert into hotels (hotel_id, name, lat, lon, price, rating)
    with recursive numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last)
    select n, 'Hotel ' || n, n * 7919 % 10000, n * 3571 % 10000, 4000 + n * 37 % 36000, 10 + n * 13 % 41
    from numbers
"""
LOAD_ROOMS = """
    insert into rooms (hotel_id, night, free)
    with recursive
        numbers (n) as (select cast(:first as integer) union all select n + 1 from numbers where n < :last),
        nights (t) as (select 1 union all select t + 1 from nights where t < 90)
    select n, t, 1000000 from numbers cross join nights
"""
SEASON = "select last_night from season where year = 1"
IN_BOX = "lat between :lat - 500 and :lat + 500 and lon between :lon - 500 and :lon + 500"
NEAREST_FIRST = "(lat - :lat) * (lat - :lat) + (lon - :lon) * (lon - :lon), hotel_id"
NEAREST = f"select hotel_id from hotels where {IN_BOX} order by {NEAREST_FIRST} limit 10"
HOTEL = "select name, price, rating from hotels where hotel_id = :hotel"
FREE = "select min(free) from rooms where hotel_id = :hotel and night in (:night, :night + 1)"
BEST = {
    by: f"select hotel_id, name, price, rating from hotels where {IN_BOX} order by {order} limit 1"
    for by, order in {"price": "price, hotel_id", "rating": "rating desc, hotel_id", "distance": NEAREST_FIRST}.items()
}
FREE_AT = "select free from rooms where hotel_id = :hotel and night = :night"
TAKE = "update rooms set free = free - 1 where hotel_id = :hotel and night = :night and free > 0"
ADD_RESERVATION = """
    insert into reservations (hotel_id, user_id, first_night, nights) values (:hotel, :user, :night, 2)
    returning reservation_id
"""
VIOLATIONS = """
    select abs((select sum(1000000 - free) from rooms) - (select coalesce(sum(nights), 0) from reservations))
"""
