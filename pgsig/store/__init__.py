"""Everything that speaks SQL. The rest of pgsig calls these functions with a connection and gets the nouns of `pgsig.model` back.

A function takes the caller's psycopg connection, so that what it does belongs to the caller's transaction.
The statements themselves are named and explained in `sql/queries`; the database's own half of the work is in `sql/api`.
"""
