-- What calls read and wrote, packed (`engine/effects.py`), in the order of commits. It is the effects of a `call`, by
-- its `seq`, or of a migration. Taken apart in a file beside this one (`expansion.py`).
create table apiary_effects (
    number integer primary key,
    call integer,
    migration text,
    effects blob not null
);

-- What effects refer to: statements, and the columns of tables.
create table apiary_terms (
    id integer primary key,
    term text not null
);
