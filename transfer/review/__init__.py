"""What a change does to the study, as one comment on a pull request."""
