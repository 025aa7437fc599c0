-- TRIGGERS: due times become signals, each once, whichever clock process comes first.

-- A trigger fell due: its tick becomes a signal once, whichever clock process comes first. NULL: another one was faster.
CREATE OR REPLACE FUNCTION pgsig_private.fire(p_trigger bigint, p_due timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_id bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM pgsig_private.trigger t WHERE t.id = p_trigger AND t.removed_at IS NULL) THEN
        RETURN NULL;
    END IF;
    INSERT INTO pgsig_private.tick (trigger_id, due_at, signal_id)
    VALUES (p_trigger, p_due, nextval('pgsig_private.signal_id')) ON CONFLICT DO NOTHING
    RETURNING signal_id INTO v_id;
    IF v_id IS NULL THEN
        RETURN NULL;
    END IF;
    INSERT INTO pgsig.signals (kind, id, namespace, key, value, source)
    SELECT 'tick', v_id, w.namespace, 'tick.' || w.name || '.' || o.name,
           jsonb_build_object('trigger', t.name, 'due', p_due), 'trigger:' || t.name
      FROM pgsig_private.trigger t
      JOIN pgsig_private.operator o ON o.id = t.operator_id
      JOIN pgsig_private.workflow w ON w.id = o.workflow_id
     WHERE t.id = p_trigger;
    UPDATE pgsig_private.trigger t SET last_due = greatest(t.last_due, p_due) WHERE t.id = p_trigger;
    RETURN v_id;
END $$;
