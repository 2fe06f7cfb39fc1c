"""Tests of mtrl.videos."""
