-- Calls in an order in which none comes before one that was seen: by the transaction that wrote them, then by `seq`.
-- Transactions may commit in any order, but those before the oldest one that still runs have all ended.
alter table {log}.calls add column tx xid8 not null default '0';
alter table {log}.calls alter column tx set default pg_current_xact_id();
create index calls_order on {log}.calls (tx, seq);
