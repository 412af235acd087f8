"""Intervals, calibration and length control: numbers in, numbers out."""
