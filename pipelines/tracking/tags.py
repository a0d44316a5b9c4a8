"""Tags of calm-bench's own on runs in MLflow, by which they are found again and known to be complete."""

from __future__ import annotations

ROLE = "calm_bench.role"
"""``study`` on the parent run, ``trial`` on its children, ``evaluation`` on a run of its own."""
FORMER = "former trial"
"""Value of :data:`ROLE` where the trial has another result by now, or is none of its study's any more; also on the
version of its model."""
SEARCH = "search trial"
"""Value of :data:`ROLE` on a trial of a search whose best trials were trained again: its score, on validation text,
chose among settings and is no row of the leaderboard any more."""
STUDY_NAME = "calm_bench.study"
STUDY_IDENTITY = "calm_bench.study_identity"
TRIAL_KEY = "calm_bench.trial"
"""What makes a trial's run unique within its study, ``number/identity of its last stage``."""
ENTRY = "calm_bench.entry"
"""The leaderboard row as JSON; what is too long for one tag goes on in ``calm_bench.entry.2`` and so on."""
BEST_TRIAL = "calm_bench.best"
"""On a study: the label of the trial that leads its leaderboard."""
MODEL_FOLDER = "calm_bench.model_folder"
PROTOCOLS = "calm_bench.protocol_hash"
"""On an evaluation: the hashes of all protocols, separated by commas; each metric has its own in ``evaluation.json``
too."""

SENT = "calm_bench.sent"
"""On a trial: the last step that has arrived, by stage and split."""
SAMPLES = "calm_bench.samples"
"""On a study: how many samples of the machine have arrived, by the log that they are in."""
COMPLETE = "calm_bench.complete"
DESCRIBED = "calm_bench.described"
ERROR = "calm_bench.error"
STATE = "calm_bench.state"
LEADERBOARD = "calm_bench.leaderboard"
VIOLATIONS = "calm_bench.violations"
