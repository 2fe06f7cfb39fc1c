"""A robot that speaks ROS 2: CDR, the wire, and the process between the wire and the control loop.

Nothing here is imported before a robot of this kind is used; `wire.py` needs the extra `ros2`.
"""
