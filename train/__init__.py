"""Workstation stage: pictures of good parts become an encoder, an anomaly head and a report."""
