"""The feedback log, which stores what users do durably and in order.

The gateway appends events to an `EventLog` and follows it by position; the trainer reads it from
the beginning. Start with `log.py`. `events.py` defines events, and `event_ratings.py` the ratings
that they count as. `statements.py` and its siblings contain the SQL, `schema.py` the tables,
`database.py` and `engine.py` the connections to SQLite or PostgreSQL, and `migrations/` the Alembic
migrations. `log.py` and the SQL need the extra `feedback`; the package imports nothing of
`marquee_core` outside itself.
"""
