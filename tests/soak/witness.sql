-- What happens in the database, written down as it happens: the soak's own record, in tables of its own, by triggers that pgsig does not know.
CREATE SCHEMA soak;

-- Each take, with the transaction that made it and the versions that were in force in it.
CREATE TABLE soak.step (
    lane smallint, seq bigint, s1 text, s2 text, last_id bigint, xid text, versions jsonb, PRIMARY KEY (lane, seq)
);
CREATE FUNCTION soak.note_step() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO soak.step VALUES (NEW.lane, NEW.seq, NEW.s1, NEW.s2, NEW.last_id, pg_current_xact_id()::text, (
        SELECT jsonb_object_agg(v.operator_id, v.version) FROM (
            SELECT o.operator_id, max(o.version) AS version FROM pgsig_private.operator_version o GROUP BY 1) v));
    RETURN NULL;
END $$;
CREATE TRIGGER soak_step AFTER INSERT ON pgsig_private.cursor FOR EACH ROW EXECUTE FUNCTION soak.note_step();

-- Each change of a run's state, epoch or attempt.
CREATE TABLE soak.move (
    id bigserial PRIMARY KEY, run_id bigint, old_state text, state text, old_epoch bigint, epoch bigint, attempt integer, runner_id bigint,
    at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION soak.note_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO soak.move (run_id, old_state, state, old_epoch, epoch, attempt, runner_id)
    VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, CASE WHEN TG_OP = 'UPDATE' THEN OLD.epoch END, NEW.epoch,
            NEW.attempt, NEW.runner_id);
    RETURN NULL;
END $$;
CREATE TRIGGER soak_first AFTER INSERT ON pgsig_private.run FOR EACH ROW EXECUTE FUNCTION soak.note_move();
CREATE TRIGGER soak_move AFTER UPDATE ON pgsig_private.run FOR EACH ROW
    WHEN ((OLD.state, OLD.epoch, OLD.attempt) IS DISTINCT FROM (NEW.state, NEW.epoch, NEW.attempt)) EXECUTE FUNCTION soak.note_move();

-- Each generation of an instance.
CREATE TABLE soak.generation (id bigserial PRIMARY KEY, operator_id bigint, subject text, old bigint, new bigint);
CREATE FUNCTION soak.note_generation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO soak.generation (operator_id, subject, old, new) VALUES (NEW.operator_id, NEW.subject, OLD.generation, NEW.generation);
    RETURN NULL;
END $$;
CREATE TRIGGER soak_generation AFTER UPDATE ON pgsig_private.instance FOR EACH ROW
    WHEN (OLD.generation IS DISTINCT FROM NEW.generation) EXECUTE FUNCTION soak.note_generation();
