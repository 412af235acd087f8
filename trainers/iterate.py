"""Aligns a policy in iterations: `accelerate launch trainers/iterate.py ...`."""

from gpm_hf.scripts.iterate import run

if __name__ == "__main__":
    run()
