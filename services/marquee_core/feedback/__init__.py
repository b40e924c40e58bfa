"""The feedback log: what users do, stored durably and in order.

Start with `log.py`: the gateway appends events to an `EventLog` and follows it by position, and the
trainer can read it from the beginning. `statements.py` has its SQL, `events.py` defines an event,
and `event_ratings.py` what it counts as for the models. `schema.py` has the tables, `database.py` and
`engine.py` the connections to SQLite or PostgreSQL, and `migrations/` the Alembic migrations that
create the tables. Needs the extra `feedback`.
"""
