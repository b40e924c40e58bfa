"""Experiments, which compare releases or blends by showing each user one of them.

Start with `experiment.py`: an `Experiment` has arms and assigns users to them. `arm_argument.py`
parses the command-line argument for an arm, `recommendation_id.py` creates the ids that link
feedback to its arm, and `store.py` stores experiments in the release store. `outcome.py` joins
lists and feedback, and `sequential.py` compares arms by a test that may be checked at any time. The
package may import `release` and `feedback` of `marquee_core`.
"""
