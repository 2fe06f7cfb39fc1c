"""Commands on an artefact and on the log of its flight."""
