"""Recorded feedback: written to the log, read by every gateway, and folded into answers.

`writer.py` records events, `follower.py` reads the log in a separate thread, and `fresh.py` holds
the feedback in memory for answers, which never wait for the database. `ranking/subjects.py` folds
in a user's feedback. May import `marquee_core`. Start with `../feedback_servicer.py`, which has the
methods of the API.
"""
