"""The trainer: loads ratings, fits and evaluates models, learns the ensemble, publishes releases.

May import `marquee_core`, `marquee_services` and the client; nothing imports it. Start with
`training/train.py` for the order of work, `commands/train.py` for the command around it.
"""
