-- TPC-C: https://www.tpc.org/tpc_documents_current_versions/pdf/tpc-c_v5.11.0.pdf, clause 1.3.
-- Money in cents, taxes and discounts in 1/10,000, times in seconds since 1970.
create table warehouse (
    w_id integer primary key,
    w_name text not null,
    w_street_1 text not null,
    w_street_2 text not null,
    w_city text not null,
    w_state text not null,
    w_zip text not null,
    w_tax integer not null,
    w_ytd bigint not null
);

create table district (
    d_w_id integer not null,
    d_id integer not null,
    d_name text not null,
    d_street_1 text not null,
    d_street_2 text not null,
    d_city text not null,
    d_state text not null,
    d_zip text not null,
    d_tax integer not null,
    d_ytd bigint not null,
    d_next_o_id integer not null,
    primary key (d_w_id, d_id)
);

create table customer (
    c_w_id integer not null,
    c_d_id integer not null,
    c_id integer not null,
    c_first text not null,
    c_middle text not null,
    c_last text not null,
    c_street_1 text not null,
    c_street_2 text not null,
    c_city text not null,
    c_state text not null,
    c_zip text not null,
    c_phone text not null,
    c_since double precision not null,
    c_credit text not null,
    c_credit_lim bigint not null,
    c_discount integer not null,
    c_balance bigint not null,
    c_ytd_payment bigint not null,
    c_payment_cnt integer not null,
    c_delivery_cnt integer not null,
    c_data text not null,
    primary key (c_w_id, c_d_id, c_id)
);
create index customer_by_name on customer (c_w_id, c_d_id, c_last, c_first);

create table history (
    h_c_id integer not null,
    h_c_d_id integer not null,
    h_c_w_id integer not null,
    h_d_id integer not null,
    h_w_id integer not null,
    h_date double precision not null,
    h_amount integer not null,
    h_data text not null
);

create table item (
    i_id integer primary key,
    i_im_id integer not null,
    i_name text not null,
    i_price integer not null,
    i_data text not null
);

create table stock (
    s_w_id integer not null,
    s_i_id integer not null,
    s_quantity integer not null,
    s_dist_01 text not null,
    s_dist_02 text not null,
    s_dist_03 text not null,
    s_dist_04 text not null,
    s_dist_05 text not null,
    s_dist_06 text not null,
    s_dist_07 text not null,
    s_dist_08 text not null,
    s_dist_09 text not null,
    s_dist_10 text not null,
    s_ytd bigint not null,
    s_order_cnt integer not null,
    s_remote_cnt integer not null,
    s_data text not null,
    primary key (s_w_id, s_i_id)
);

create table orders (
    o_w_id integer not null,
    o_d_id integer not null,
    o_id integer not null,
    o_c_id integer not null,
    o_entry_d double precision not null,
    o_carrier_id integer,
    o_ol_cnt integer not null,
    o_all_local integer not null,
    primary key (o_w_id, o_d_id, o_id)
);

create table new_order (
    no_w_id integer not null,
    no_d_id integer not null,
    no_o_id integer not null,
    primary key (no_w_id, no_d_id, no_o_id)
);

create table order_line (
    ol_w_id integer not null,
    ol_d_id integer not null,
    ol_o_id integer not null,
    ol_number integer not null,
    ol_i_id integer not null,
    ol_supply_w_id integer not null,
    ol_delivery_d double precision,
    ol_quantity integer not null,
    ol_amount integer not null,
    ol_dist_info text not null,
    primary key (ol_w_id, ol_d_id, ol_o_id, ol_number)
);
