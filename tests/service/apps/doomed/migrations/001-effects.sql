create table effects (key text not null);
