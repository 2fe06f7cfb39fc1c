"""A deployment from start to result file: the session, the flight log and the report."""
