"""What a third party writes: a package of their own, and the tutorials that say how."""
