"""Evaluation: what is measured of videos, how sure it is, and where it is written."""
