"""The simulated arm: its kinematics, its physics with faults on demand, and its process."""
