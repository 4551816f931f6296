"""Training one configuration: everything that decides how a run comes out."""
