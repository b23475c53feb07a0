'use strict';
// What a token says beside who somebody is. Pure, so that it can be tested without Google.

/** Roles that a customer may give its own people; platform_admin is never among them. */
const TENANT_ROLES = new Set(['tenant_admin', 'auditor', 'analyst']);

/**
 * The claims of one sign-in.
 *
 * Inside a tenant of Identity Platform: that tenant, and the tenant's roles among the user's own claims. Without one: no tenant, and
 * platform_admin if the verified address is on the list.
 *
 * @param {{tenantId?: string|null, email?: string, emailVerified?: boolean, customClaims?: object}} user
 * @param {string[]} platformAdmins
 * @returns {{tenant_id?: string, roles: string[]}}
 */
function claims(user, platformAdmins) {
  if (user.tenantId) {
    const own = user.customClaims && user.customClaims.roles;
    const roles = Array.isArray(own) ? own.filter((role) => TENANT_ROLES.has(role)) : [];
    return { tenant_id: user.tenantId, roles: [...new Set(roles)].sort() };
  }
  const address = (user.email || '').toLowerCase();
  const known = user.emailVerified === true && address !== '' && platformAdmins.includes(address);
  return { roles: known ? ['platform_admin'] : [] };
}

/** The list out of an environment variable. */
function addresses(text) {
  return (text || '').split(',').map((one) => one.trim().toLowerCase()).filter(Boolean);
}

module.exports = { claims, addresses };
