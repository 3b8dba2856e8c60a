-- One row for an app whose deployment has begun to migrate and is not activated yet. A server that finds one when it
-- starts looks whether the migrations are in the database: then it activates the version, else it forgets the row.
create table deployments (
    app text primary key,
    version text not null,
    begun timestamp not null,
    begun_by text not null,
    foreign key (app, version) references versions (app, version)
);
