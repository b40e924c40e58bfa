"""Experiments: which release or blend answers which user, and what came of it.

Start with `experiment.py`: an `Experiment` has arms and assigns users to them. `arm_argument.py`
parses an arm as the command line takes it, `recommendation_id.py` makes the ids by which feedback
finds its arm, and `store.py` keeps experiments in the release store. `outcome.py` joins lists and
feedback, and `sequential.py` compares arms in a way that allows looking at any time.
"""
