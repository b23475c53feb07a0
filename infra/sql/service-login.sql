-- The login of `serve` and `project`: a member of license_service and nothing else. Run by the database's owner, after
-- `coditect-license migrate`; repeating it sets the password anew and changes nothing else.
--
--   SERVICE_PASSWORD=… psql "$OWNER_DATABASE_URL" --file=infra/sql/service-login.sql
\set ON_ERROR_STOP on
\getenv password SERVICE_PASSWORD
\if :{?password}
\else
  \warn 'SERVICE_PASSWORD: required, but not set'
  select 1/0 as service_password_is_not_set;
\endif
select not exists (select from pg_roles where rolname = 'license_api') as missing \gset
\if :missing
  create role license_api login noinherit;
\endif
alter role license_api with login password :'password';
grant license_service to license_api;
