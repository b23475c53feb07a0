-- The notary: seals the log as it grows. Everything here can be recomputed from the log but the salts, the secrets and
-- the signatures; a copy of a checkpoint that somebody else keeps shows whether it was.

-- How far the notary has read, and which replica is the notary.
create table notary (
  singleton   boolean primary key default true check (singleton),
  xid         xid8 not null default '0',               -- every event up to this place is a leaf of its tenant's tree
  position    bigint not null default 0,
  read_at     timestamptz not null default '-infinity', -- when the log was last read to its end
  sealed_at   timestamptz not null default '-infinity',
  holder      uuid,                                    -- the replica that is the notary, until its lease ends
  lease_until timestamptz not null default '-infinity'
);
insert into notary default values;

-- One RFC 6962 tree per tenant, as far as it is needed to go on (see merkle's Frontier), and its last sealed head.
create table trees (
  tenant_id     uuid primary key,
  size          bigint not null,
  frontier      bytea not null,
  sealed_size   bigint not null default 0,
  sealed_hash   bytea                                  -- of the tenant's latest head; null before the first
);
create index trees_to_seal on trees (tenant_id) where sealed_size < size;

-- The leaves of the trees in order: what was sealed, by event. Names what was changed or removed; stays when heartbeats
-- are archived.
create table leaves (
  tenant_id uuid not null,
  first     bigint not null,                           -- index of the first leaf of the row
  xid       xid8 not null,                             -- place of its last event
  position  bigint not null,
  event_ids bytea not null,                            -- 16 bytes each
  hashes    bytea not null check (length(event_ids) * 2 = length(hashes)), -- 32 bytes each
  primary key (tenant_id, first)
);
create index leaves_by_place on leaves (tenant_id, xid, position);
alter table leaves alter column event_ids set storage external, alter column hashes set storage external;

-- Roots of complete subtrees of 2^8, 2^16, … leaves: a proof reads some hundred hashes, however large the tree.
create table tree_nodes (
  tenant_id uuid not null,
  level     smallint not null,
  index     bigint not null,
  hash      bytea not null,
  primary key (tenant_id, level, index)
);

-- Salts of the personal fields, one per tenant and subject. Deleting one makes its commitments untestable for ever.
create table salts (
  tenant_id uuid not null,
  subject   text not null,
  salt      bytea not null check (length(salt) = 32),
  primary key (tenant_id, subject)
);

-- Public checkpoints, a chain. `secret` blinds the tenants below it and is never shown.
create table checkpoints (
  number    bigint primary key,
  previous  bytea,
  root      bytea not null,
  sealed_at timestamptz not null,
  kid       text not null,
  signature text not null,
  secret    bytea not null
);

-- The keys that ever signed a checkpoint: they verify it long after they left the set that verifies tokens.
create table checkpoint_keys (
  kid        text primary key,
  public_key text not null                             -- SubjectPublicKeyInfo, PEM
);

-- Heads of the tenants that changed before a checkpoint.
create table tenant_checkpoints (
  tenant_id uuid not null,
  number    bigint not null references checkpoints,
  size      bigint not null,
  root      bytea not null,
  previous  bytea,
  primary key (tenant_id, number)
);
create index tenant_checkpoints_by_number on tenant_checkpoints (number);

-- Heartbeats that were archived and dropped, by day: which leaves of which tenants, and the file that has them.
create table archives (
  name        text primary key,                        -- of the partition and of the file
  sha256      bytea not null,                          -- of the file
  events      bigint not null,
  checkpoint  bigint,                                  -- the public checkpoint that covered all of them
  archived_at timestamptz not null default now()
);
create table archived_leaves (
  name      text not null references archives,
  tenant_id uuid not null,
  events    bigint not null,
  runs      bytea not null,                            -- (gap, length) pairs as LEB128, from leaf 0
  primary key (tenant_id, name)
);

select make_append_only(t::regclass)
from unnest(array['leaves', 'tree_nodes', 'checkpoints', 'checkpoint_keys', 'tenant_checkpoints', 'archives', 'archived_leaves']) t;

grant update on notary, trees to license_service;
grant insert on trees, leaves, tree_nodes, salts, checkpoints, checkpoint_keys, tenant_checkpoints to license_service;

comment on table notary is 'How far the log is sealed, and which replica seals it';
comment on table trees is 'The growing edge of each tenant''s Merkle tree';
comment on table leaves is 'Event ids and leaf hashes of each tenant''s tree, in order';
comment on table tree_nodes is 'Roots of complete subtrees, for proofs';
comment on table salts is 'Salts of the commitments to personal fields; deleting one erases a person from the evidence';
comment on table checkpoints is 'Signed public checkpoints';
comment on table checkpoint_keys is 'Public keys that ever signed a checkpoint';
comment on table tenant_checkpoints is 'Tree heads of tenants, each below a public checkpoint';
comment on table archives is 'Files that hold archived heartbeats';
comment on table archived_leaves is 'Which leaves of a tenant''s tree are in which archive';
