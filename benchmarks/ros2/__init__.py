"""A real ROS 2 node, and programs that check what was on the wire."""
