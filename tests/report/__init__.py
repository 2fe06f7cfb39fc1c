"""Tests of mtrl.report."""
