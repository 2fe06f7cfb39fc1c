"""Lanes, the environments they step, and the recorder of what they did."""
