"""The trainer: loads ratings, fits and evaluates models, learns the ensemble, publishes releases.

May import `marquee_core`, `marquee_services` and the client; none of these imports the trainer.
Start with `training/train.py`, which shows the order of work, then `commands/train.py`, the
command around it.
"""
