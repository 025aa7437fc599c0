-- The client's calls of the public functions. Used by pgsig/client.py, in the caller's transaction when there is one.

-- name: client_emit
SELECT pgsig.emit(key => %(key)s, value => %(value)s::jsonb, subject => %(subject)s, namespace => %(namespace)s,
                  source => %(source)s, event_id => %(event_id)s)

-- name: client_emit_many
SELECT pgsig.emit_many(%(signals)s::jsonb, %(namespace)s)

-- name: client_act
SELECT pgsig.act(operator => %(operator)s, action => %(action)s, subject => %(subject)s, params => %(params)s::jsonb,
                 reason => %(reason)s, namespace => %(namespace)s)
