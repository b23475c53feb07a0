'use strict';
const assert = require('node:assert');
const test = require('node:test');
const { claims, addresses } = require('./claims');

const admins = addresses('Ada@coditect.ai, bob@coditect.ai');

test('inside a tenant: that tenant, and its own roles', () => {
  const user = { tenantId: 'acme-x1', email: 'eve@acme.example', emailVerified: true, customClaims: { roles: ['auditor', 'tenant_admin', 'auditor'] } };
  assert.deepStrictEqual(claims(user, admins), { tenant_id: 'acme-x1', roles: ['auditor', 'tenant_admin'] });
});

test('nobody becomes platform_admin inside a tenant, whatever the claims or the address say', () => {
  const user = { tenantId: 'acme-x1', email: 'ada@coditect.ai', emailVerified: true, customClaims: { roles: ['platform_admin', 'root'] } };
  assert.deepStrictEqual(claims(user, admins), { tenant_id: 'acme-x1', roles: [] });
});

test('without a tenant: platform_admin for a verified address on the list, in any case', () => {
  assert.deepStrictEqual(claims({ email: 'ADA@coditect.ai', emailVerified: true }, admins), { roles: ['platform_admin'] });
});

test('an address that is not verified, not on the list, or missing is nobody', () => {
  for (const user of [{ email: 'ada@coditect.ai', emailVerified: false }, { email: 'eve@acme.example', emailVerified: true }, { emailVerified: true }, { email: '', emailVerified: true }]) {
    assert.deepStrictEqual(claims(user, admins), { roles: [] });
  }
});

test('claims of the wrong shape are no roles', () => {
  for (const roles of [undefined, 'auditor', { auditor: true }, null]) {
    assert.deepStrictEqual(claims({ tenantId: 't', customClaims: { roles } }, admins), { tenant_id: 't', roles: [] });
  }
});

test('an empty list lets nobody in', () => {
  assert.deepStrictEqual(addresses(''), []);
  assert.deepStrictEqual(claims({ email: '', emailVerified: true }, addresses(undefined)), { roles: [] });
});
