-- What the generated picture sql/schema.sql is made of. Partitions and Alembic's own table are left out.

-- name: schema_relations
SELECT c.oid::bigint, c.oid::regclass::text, CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END,
       CASE WHEN c.relkind = 'p' THEN ' PARTITION BY ' || pg_get_partkeydef(c.oid) ELSE '' END
       || coalesce(' WITH (' || array_to_string(c.reloptions, ', ') || ')', ''),
       obj_description(c.oid, 'pg_class')
  FROM pg_class c
 WHERE c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
   AND NOT c.relispartition AND c.relname <> 'schema_version'
 ORDER BY c.relnamespace::regnamespace::text, c.relkind = 'v', c.oid::regclass::text

-- name: schema_columns
SELECT a.attrelid::bigint, a.attname,
       format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
       || CASE WHEN a.attidentity <> '' THEN ' GENERATED ALWAYS AS IDENTITY'
               WHEN a.attgenerated <> '' THEN ' GENERATED ALWAYS AS (' || pg_get_expr(d.adbin, d.adrelid) || ') STORED'
               WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || regexp_replace(pg_get_expr(d.adbin, d.adrelid), '\s+', ' ', 'g') ELSE '' END,
       col_description(a.attrelid, a.attnum)
  FROM pg_attribute a
  JOIN pg_class c ON c.oid = a.attrelid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
   AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid, a.attnum

-- name: schema_constraints
SELECT k.conrelid::bigint, 'CONSTRAINT ' || quote_ident(k.conname) || ' ' || pg_get_constraintdef(k.oid)
  FROM pg_constraint k
 WHERE k.connamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace) AND k.contype IN ('c', 'p', 'u', 'f') AND k.conrelid <> 0
 ORDER BY k.conrelid, array_position(ARRAY['p', 'u', 'f', 'c'], k.contype::text), k.conname

-- name: schema_indexes
SELECT i.indrelid::bigint, pg_get_indexdef(i.indexrelid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
 WHERE c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace)
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
 ORDER BY i.indrelid, i.indexrelid::regclass::text

-- name: schema_triggers
SELECT t.tgrelid::bigint, pg_get_triggerdef(t.oid)
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE NOT t.tgisinternal AND c.relnamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace)
 ORDER BY t.tgrelid, t.tgname

-- name: schema_functions
SELECT p.oid::regprocedure::text, pg_get_function_result(p.oid), obj_description(p.oid, 'pg_proc')
  FROM pg_proc p
 WHERE p.pronamespace IN ('pgsig'::regnamespace, 'pgsig_private'::regnamespace)
 ORDER BY p.pronamespace::regnamespace::text, p.oid::regprocedure::text
