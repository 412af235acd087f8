"""Trains a policy online: `accelerate launch trainers/gpo.py ...`."""

from gpm_hf.scripts.gpo import run

if __name__ == "__main__":
    run()
