"""The log becomes `pgsig_private.signal`, without a trigger; `pgsig.signals` is a view of it, the door.

Why: the WHEN of a row trigger is read from text, planned and set up anew by each statement that inserts into its table, also where it then
calls nothing: a sixth of the instructions of `pgsig.emit`, which needs no guard. The trigger of a view (`insert_signal` in
sql/api/10_emit.sql) is met only by those who insert into the view. The table keeps its oid, by which `origin` knows it, its rows, its
partitions and its indexes. Who was allowed what on `pgsig.signals` is allowed it on the view; on the table nobody but its owner and
pgsig_service is. Only metadata changes, no row.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

# What others than the owner may do with one relation, they may do with another.
HAND_ON = """
    FOR item IN
        SELECT a.privilege_type AS what, '' AS columns, a.grantee, a.is_grantable FROM pg_class c, aclexplode(c.relacl) a
         WHERE c.oid = '{old}'::regclass AND a.grantee <> c.relowner
        UNION ALL
        SELECT a.privilege_type, format(' (%I)', t.attname), a.grantee, a.is_grantable
          FROM pg_class c JOIN pg_attribute t ON t.attrelid = c.oid AND t.attnum > 0 AND NOT t.attisdropped, aclexplode(t.attacl) a
         WHERE c.oid = '{old}'::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('GRANT %s%s ON {new} TO %s%s', item.what, item.columns,
            CASE item.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(item.grantee)) END,
            CASE WHEN item.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END);
    END LOOP;
"""

UP = """
DROP TRIGGER IF EXISTS before_signal ON pgsig.signals;
DROP FUNCTION IF EXISTS pgsig_private.before_signal();
ALTER TABLE pgsig.signals SET SCHEMA pgsig_private;
ALTER TABLE pgsig_private.signals RENAME TO signal;

-- What is given by the trigger has no default here: position, time and lane. Which transaction it is, is told by the view and noted by the
-- table; in a database that was restored that is another number (`adopt` in sql/api/15_origin.sql).
CREATE VIEW pgsig.signals AS
    SELECT s.xid, s.id, s.namespace, s.key, s.subject, s.value, s.source, s.event_id, s.run_id, s.emitted_at, s.kind, s.depth, s.lane
      FROM pgsig_private.signal s;
ALTER VIEW pgsig.signals ALTER COLUMN namespace SET DEFAULT 'default';
ALTER VIEW pgsig.signals ALTER COLUMN subject SET DEFAULT '';
ALTER VIEW pgsig.signals ALTER COLUMN value SET DEFAULT 'null';
ALTER VIEW pgsig.signals ALTER COLUMN source SET DEFAULT session_user;
ALTER VIEW pgsig.signals ALTER COLUMN kind SET DEFAULT 'user';
ALTER VIEW pgsig.signals ALTER COLUMN depth SET DEFAULT 0;

DO $$ DECLARE item record; BEGIN
    -- It reads the log with its owner's rights, whoever migrates.
    EXECUTE format('ALTER VIEW pgsig.signals OWNER TO %I',
        (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = 'pgsig_private.signal'::regclass));
    EXECUTE 'ALTER VIEW pgsig.signals ALTER COLUMN xid SET DEFAULT ' || (
        SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute t ON t.attrelid = d.adrelid AND t.attnum = d.adnum
         WHERE d.adrelid = 'pgsig_private.signal'::regclass AND t.attname = 'xid');
    {hand_on}
    FOR item IN
        SELECT DISTINCT a.grantee FROM pg_class c, LATERAL (
            SELECT * FROM aclexplode(c.relacl)
            UNION ALL SELECT e.* FROM pg_attribute t, aclexplode(t.attacl) e WHERE t.attrelid = c.oid) a
         WHERE c.oid = 'pgsig_private.signal'::regclass AND a.grantee <> c.relowner
           AND a.grantee IS DISTINCT FROM (SELECT r.oid FROM pg_roles r WHERE r.rolname = 'pgsig_service')
    LOOP
        EXECUTE format('REVOKE ALL ON pgsig_private.signal FROM %s CASCADE',
            CASE item.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(item.grantee)) END);
    END LOOP;
    -- The words about it are the view's (sql/api/50_views.sql).
    FOR item IN
        SELECT t.attname FROM pg_attribute t
         WHERE t.attrelid = 'pgsig_private.signal'::regclass AND t.attnum > 0 AND NOT t.attisdropped
    LOOP
        EXECUTE format('COMMENT ON COLUMN pgsig_private.signal.%I IS NULL', item.attname);
    END LOOP;
    -- What emitting needed, and does not any more.
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = 'pgsig_emitter') THEN
        REVOKE USAGE ON SEQUENCE pgsig_private.signal_id FROM pgsig_emitter;
        IF to_regprocedure('pgsig_private.refuse(text[])') IS NOT NULL THEN
            REVOKE EXECUTE ON FUNCTION pgsig_private.refuse FROM pgsig_emitter;
        END IF;
        IF to_regprocedure('pgsig_private.first_position(text, text, text)') IS NOT NULL THEN
            REVOKE EXECUTE ON FUNCTION pgsig_private.first_position FROM pgsig_emitter;
        END IF;
    END IF;
END $$;
"""

DOWN = """
DO $$ DECLARE item record; BEGIN
    {hand_on}
END $$;
DROP VIEW pgsig.signals;
DROP FUNCTION IF EXISTS pgsig_private.insert_signal();
DROP FUNCTION IF EXISTS pgsig_private.lane_of(text, text, jsonb, text, text, text, text);
ALTER TABLE pgsig_private.signal RENAME TO signals;
ALTER TABLE pgsig_private.signals SET SCHEMA pgsig;
-- Whatever version comes next, its guard is not there.
UPDATE pgsig_private.setting SET value = 'null' WHERE name = 'sql_digest';
"""


def upgrade() -> None:
    op.execute(UP.replace("{hand_on}", HAND_ON.format(old="pgsig_private.signal", new="pgsig.signals")))


def downgrade() -> None:
    op.execute(DOWN.replace("{hand_on}", HAND_ON.format(old="pgsig.signals", new="pgsig_private.signal")))
