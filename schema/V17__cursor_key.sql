-- Cursors are sealed with a key: a place in the log of all tenants would tell each how much the others write. All replicas,
-- and whoever restores a backup, have the same. 122 random bits.
alter table log_epoch add column cursor_key bytea not null default decode(replace(gen_random_uuid()::text, '-', ''), 'hex')
  check (length(cursor_key) = 16);

comment on table log_epoch is 'What cursors name besides a place, and the key that seals them';
