"""Files that somebody else wrote: crafted, edited, damaged, and those that ask for unbounded work."""
