"""Tests of mtrl.evaluation."""
