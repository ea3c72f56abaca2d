-- +goose Up

-- The one service whose events this schema records, set by its first start.
ALTER TABLE installation
    ADD COLUMN source     text,
    ADD COLUMN claimed_at timestamptz;

-- Creates the partition of a day, for roles that may not create tables: the function runs with the rights of the schema's owner,
-- who then owns the partition. The partition gets the privileges of its table. Returns false if the partition exists.
CREATE FUNCTION {schema}.make_partition(parent text, partition text, lower uuid, upper uuid) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    parent_oid regclass := pg_catalog.to_regclass(pg_catalog.format('%s.%I', {schema_literal}, parent));
    child      text     := pg_catalog.format('%s.%I', {schema_literal}, partition);
    grant_to   record;
BEGIN
    IF parent_oid IS NULL OR NOT pg_catalog.starts_with(partition, parent || '_p') THEN
        RAISE EXCEPTION 'no partition of %: %', parent, partition USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF pg_catalog.to_regclass(child) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- CREATE TABLE and ATTACH lock the parent less than CREATE TABLE ... PARTITION OF does.
    EXECUTE pg_catalog.format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', child, parent_oid);
    EXECUTE pg_catalog.format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)', parent_oid, child, lower, upper);
    FOR grant_to IN
        SELECT a.privilege_type, CASE WHEN a.grantee = 0::oid THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM pg_catalog.pg_class c CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        WHERE c.oid = parent_oid::oid AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('GRANT %s ON %s TO %s', grant_to.privilege_type, child, grant_to.role);
    END LOOP;
    RETURN true;
END
$function$;

-- Drops the partition of a day.
CREATE FUNCTION {schema}.drop_partition(parent text, partition text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    parent_oid regclass := pg_catalog.to_regclass(pg_catalog.format('%s.%I', {schema_literal}, parent));
    child      text     := pg_catalog.format('%s.%I', {schema_literal}, partition);
BEGIN
    IF pg_catalog.to_regclass(child) IS NULL THEN
        RETURN;
    END IF;
    IF NOT pg_catalog.starts_with(partition, parent || '_p') OR NOT EXISTS (
        SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = parent_oid::oid AND i.inhrelid = pg_catalog.to_regclass(child)::oid
    ) THEN
        RAISE EXCEPTION 'no partition of %: %', parent, partition USING ERRCODE = 'invalid_parameter_value';
    END IF;
    EXECUTE pg_catalog.format('DROP TABLE %s', child);
END
$function$;

REVOKE ALL ON FUNCTION {schema}.make_partition(text, text, uuid, uuid), {schema}.drop_partition(text, text) FROM PUBLIC;

-- +goose Down
DROP FUNCTION {schema}.make_partition(text, text, uuid, uuid), {schema}.drop_partition(text, text);
ALTER TABLE installation DROP COLUMN source, DROP COLUMN claimed_at;
