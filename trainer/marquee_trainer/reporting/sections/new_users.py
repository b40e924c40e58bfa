"""New users: the quality of recommendations for new users, by the number of ratings they give."""

from __future__ import annotations

from marquee_trainer.reporting import plots
from marquee_trainer.reporting.page import Section
from marquee_trainer.studies.new_users import NewUsersResult


def new_users_section(study: NewUsersResult) -> Section:
    """Builds the section with the test errors of held-out users.

    The last column compares fold-in with retraining on as many ratings of each user: positive if
    the error of fold-in is larger.

    Args:
        study: The errors of the models, by the number of ratings that are folded in.
    """
    position = study.given.index(study.retrained) if study.retrained in study.given else None
    rows = []
    for name, curve in study.mse.items():
        retrained = study.retrained_mse[name]
        change = "" if position is None else f"{curve[position] / retrained - 1:+.2%}"
        rows.append([name, *(f"{mse:.4f}" for mse in curve), f"{retrained:.4f}", change])
    counts = [str(count) for count in study.given]
    return Section(
        "New users",
        f"The test MSE of {study.users:,} users who were held out of training, by the number of "
        f"ratings that are folded in, and after retraining with {study.retrained} ratings of each.",
        ("model", *counts, f"{study.retrained}, retrained", "fold-in against retrained"),
        rows,
        plots.new_users_curves(study, list(study.ndcg)),
    )
