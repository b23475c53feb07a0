-- How far each projection has read; its rows and this row change in one transaction.
create table projection_cursors (
  projection text primary key,
  xid        xid8 not null default '0',
  position   bigint not null default 0,
  read_at    timestamptz not null default now()
);

-- Read model `tenants`: a tenant as an admin's list shows it.
create table tenants_view (
  tenant_id       uuid primary key,
  name            text not null,
  subdomain       text not null,
  plan            text not null,
  max_seats       bigint not null,
  active          boolean not null,
  identity_tenant text,
  license_id      uuid,
  created_at      timestamptz not null,
  updated_at      timestamptz not null
);

grant insert, update, delete, truncate on projection_cursors, tenants_view to license_service;
