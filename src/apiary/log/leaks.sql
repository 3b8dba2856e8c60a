-- Who read what they should not, over the views of the log, which are the same on every engine.

-- The reads of a table for which a condition does not hold; {columns} are those of the row that the condition names. They
-- are looked at in their order, the latest first (no index by table is used), until there are as many as are asked for.
-- name: reads
select at, call, function, kind, caller, statement, parameters, key, row from reads
where effect >= :first and table_name || '' = :table and at >= :since and (:caller is null or caller = :caller)
  and (:function is null or function = :function) and not coalesce((select
{condition}
from (select {columns}) as {table}), false)
order by effect desc, number desc, place desc;

-- A column of a row that was read: as the statement gave it, or as the row's version at that place of the log has it.
-- name: column
case when reads.row -> {label} is not null then reads.row ->> {label}
     when reads.key -> {label} is not null then reads.key ->> {label}
     else (select after ->> {label} from writes as version
           where version.table_name = reads.table_name and version.key = reads.key and version.effect <= reads.effect
           order by version.effect desc, version.number desc limit 1) end as {name};
