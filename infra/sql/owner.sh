#!/bin/sh
# Where we own the server (compose, drills): the login that migrates, and the database that it owns. Run as the superuser, once.
# On Cloud SQL, OpenTofu makes both (infra/modules/cloud-sql).
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --set=password="${OWNER_PASSWORD:?}" --dbname=postgres <<'SQL'
create role license_owner login createrole password :'password';
create database license owner license_owner;
SQL
