"""Unknown users: how much item features alone can improve on the baseline."""

from __future__ import annotations

from marquee_trainer.reporting.page import Section
from marquee_trainer.studies.unknown_users import UnknownUsers


def unknown_users_section(study: UnknownUsers) -> Section:
    """RMSE of regressions on item features, for users who have no training rating."""
    rows = [
        [
            name,
            f"{study.validation_fitted[name]:.4f}",
            f"{study.validation_fitted[name] / study.baseline - 1:+.2%}",
            f"{study.oracle[name]:.4f}",
            f"{study.oracle[name] / study.baseline - 1:+.2%}",
        ]
        for name in study.validation_fitted
    ]
    return Section(
        "Unknown users: what item features can predict",
        f"{study.ratings:,} test ratings are by users without a training rating; the baseline's "
        f"RMSE on them is {study.baseline:.4f}. A ridge regression on item features, fitted to "
        "such ratings of the validation part, shows the gain that is possible without knowing the "
        "user. The oracle is a least-squares fit of the same features to the test ratings "
        "themselves. No real model can use it, and it bounds the possible gain.",
        ("item features", "RMSE", "change", "oracle RMSE", "change"),
        rows,
    )
