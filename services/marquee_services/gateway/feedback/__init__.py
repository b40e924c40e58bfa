"""Recorded feedback: written to the log, followed by every gateway, and folded into answers.

`writer.py` records events, `follower.py` reads the log in a thread of its own, and `fresh.py` holds
what it read for the answers, which never wait for the database. `ranking/subjects.py` folds a
user's feedback in. The methods of the API are in `../feedback_servicer.py`.
"""
