"""Kapture datasets: sensors and records, features, matches, pairs, poses."""
