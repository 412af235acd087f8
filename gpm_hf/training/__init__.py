"""Trainers on top of TRL's, and the losses they minimise."""

from .losses import cross_entropy_loss, regression_loss
from .reward_config import GPMRewardConfig
from .reward_trainer import GPMRewardTrainer

__all__ = ["GPMRewardConfig", "GPMRewardTrainer", "cross_entropy_loss", "regression_loss"]
