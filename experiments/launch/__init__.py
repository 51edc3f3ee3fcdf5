"""What Hydra calls: the command line, the launcher, the sweepers, and the end of a sweep."""
