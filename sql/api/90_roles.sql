-- ROLES: groups to grant to your logins. Where creating roles is not allowed this file only takes rights away from PUBLIC.
--   pgsig_emitter   emit signals            pgsig_operator  order actions by hand; reads
--   pgsig_reader    read views and signals  pgsig_service   what worker, runner, clock and web log in as

DO $$
DECLARE
    v_role text;
BEGIN
    FOREACH v_role IN ARRAY ARRAY['pgsig_emitter', 'pgsig_reader', 'pgsig_operator', 'pgsig_service'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = v_role) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', v_role);
        END IF;
    END LOOP;
EXCEPTION
    -- Two databases of one cluster being migrated at once may both create them.
    WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
        RAISE NOTICE 'the roles pgsig_* could not be created here: %', SQLERRM;
END $$;

REVOKE ALL ON SCHEMA pgsig, pgsig_private FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pgsig, pgsig_private FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pgsig, pgsig_private FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pgsig_private FROM PUBLIC;

DO $$
DECLARE
    v_grant text;
BEGIN
    IF (SELECT count(*) FROM pg_roles WHERE rolname IN ('pgsig_emitter', 'pgsig_reader', 'pgsig_operator', 'pgsig_service')) < 4 THEN
        RETURN;
    END IF;
    FOREACH v_grant IN ARRAY ARRAY[
        'GRANT USAGE ON SCHEMA pgsig, pgsig_private TO pgsig_emitter, pgsig_reader, pgsig_service',
        -- Only what a caller may say of a signal: position, lane, time, kind and depth cannot be forged. The log itself is behind the view.
        'GRANT INSERT (namespace, key, subject, value, source, event_id, run_id), SELECT (id) ON pgsig.signals TO pgsig_emitter',
        'GRANT EXECUTE ON FUNCTION pgsig.emit, pgsig.emit_many, pgsig_private.signal_problems TO pgsig_emitter',
        'GRANT SELECT ON ALL TABLES IN SCHEMA pgsig TO pgsig_reader',
        'GRANT SELECT ON pgsig_private.workflow, pgsig_private.operator, pgsig_private.operator_version, pgsig_private.rule,
             pgsig_private.instance, pgsig_private.action, pgsig_private.outcome, pgsig_private.fate, pgsig_private.run, pgsig_private.lane,
             pgsig_private.cursor, pgsig_private.trigger, pgsig_private.pool, pgsig_private.process TO pgsig_reader',
        'GRANT EXECUTE ON FUNCTION pgsig.why, pgsig_private.effects, pgsig_private.behind TO pgsig_reader',
        'GRANT pgsig_reader TO pgsig_operator',
        'GRANT EXECUTE ON FUNCTION pgsig.act, pgsig.pause, pgsig.resume, pgsig.fire, pgsig.pause_trigger, pgsig.cancel_backfill, pgsig.limit_pool TO pgsig_operator',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgsig, pgsig_private TO pgsig_service',
        'GRANT USAGE ON ALL SEQUENCES IN SCHEMA pgsig_private TO pgsig_service',
        'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pgsig, pgsig_private TO pgsig_service'
    ] LOOP
        EXECUTE v_grant;
    END LOOP;
END $$;
