create table portable (
    id integer primary key,
    an_integer bigint,
    a_float double precision,
    a_text text,
    some_bytes blob,
    a_bool boolean,
    a_date date,
    a_time time,
    a_naive_time timestamp,
    an_instant timestamptz,
    a_decimal numeric,
    an_id uuid,
    a_document json
);
