-- The program that the backends of a host run; null until it is known. It stays in `apiary.programs` as long as the host.
alter table apiary.hosts add column program text;
