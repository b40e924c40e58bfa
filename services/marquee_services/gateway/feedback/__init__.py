"""Recorded feedback: written to the log, read by every gateway, and used in answers.

`writer.py` records events, `follower.py` reads the log in a separate thread, and `fresh.py` holds
the feedback in memory for answers, which never wait for the database. `ranking/subjects.py` adds a
user's feedback to the profile. May import `marquee_core`. Start with
`../feedback_servicer.py`, which has the methods of the API.
"""
