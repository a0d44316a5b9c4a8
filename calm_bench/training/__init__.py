"""Training: one loop for the autoencoder, the chunk model and the token model."""

from calm_bench.training.autoencoder import adopt_autoencoder, train_autoencoder
from calm_bench.training.language_model import train_language_model
from calm_bench.training.task import Diverged, Interrupted, NonFiniteLoss, TrainingError

__all__ = [
    "Diverged",
    "Interrupted",
    "NonFiniteLoss",
    "TrainingError",
    "adopt_autoencoder",
    "train_autoencoder",
    "train_language_model",
]
