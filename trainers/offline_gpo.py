"""Trains a policy offline: `accelerate launch trainers/offline_gpo.py ...`."""

from gpm_hf.scripts.offline_gpo import run

if __name__ == "__main__":
    run()
