'use strict';
// Identity Platform calls this before each sign-in; the library verifies that it is Identity Platform who calls.
const gcip = require('gcip-cloud-functions');
const { claims, addresses } = require('./claims');

const platformAdmins = addresses(process.env.PLATFORM_ADMINS);
const auth = new gcip.Auth();

exports.beforeSignIn = auth.functions().beforeSignInHandler((user) => ({ sessionClaims: claims(user, platformAdmins) }));
