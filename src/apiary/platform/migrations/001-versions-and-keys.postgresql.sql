create table versions (
    app text not null,
    version text not null,
    module text not null,
    content bytea not null,
    packages text not null,
    created timestamptz not null,
    created_by text not null,
    primary key (app, version)
);

-- One row an activation: the last one of an app is the version that serves.
create table activations (
    number bigint primary key generated always as identity,
    app text not null,
    version text not null,
    activated timestamptz not null,
    activated_by text not null,
    foreign key (app, version) references versions (app, version)
);

create index activations_app on activations (app, number);

-- Only the SHA-256 of a key is kept.
create table keys (
    name text primary key,
    digest text not null unique,
    roles json not null,
    created timestamptz not null
);
