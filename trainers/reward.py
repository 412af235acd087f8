"""Trains a preference model: `accelerate launch trainers/reward.py ...`."""

from gpm_hf.scripts.reward import run

if __name__ == "__main__":
    run()
