"""Where Hydra finds this project's launcher and sweepers."""
