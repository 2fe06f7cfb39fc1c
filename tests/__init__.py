"""Tests, in folders that mirror the source; shared helpers are imported relatively."""
