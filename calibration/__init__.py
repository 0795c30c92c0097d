"""Technician's stage, no torch: scores become thresholds with proof and a signed record."""
