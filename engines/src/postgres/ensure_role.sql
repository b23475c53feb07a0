-- The role of the product and of its tests: it may create databases and roles, and it is no superuser.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'coditect') THEN
        CREATE ROLE coditect;
    END IF;
END
$$;
ALTER ROLE coditect LOGIN CREATEROLE CREATEDB NOSUPERUSER NOBYPASSRLS NOREPLICATION;
