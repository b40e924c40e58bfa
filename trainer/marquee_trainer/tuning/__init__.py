"""`marquee tune`: searches hyperparameters on validation ratings, with Optuna.

May import `training` and everything below it. Start with `search.py`. `task.py` fits the model of a
trial and measures its loss, and `study.py` proposes and records trials. `ray_trials.py` runs trials
on a Ray cluster, and `schedule.py` shares its time between models. `spaces.py` collects the search
spaces, which the configuration classes declare, and `tuned_file.py` writes the result.
"""
