"""Trunkline's contract and Python client."""
