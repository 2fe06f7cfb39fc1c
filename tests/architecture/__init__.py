"""The rules of the house: what may import what, what the wheel holds, and where it must work."""
