"""How the lab is started: its commands, its set-up, and what `doctor` looks at."""
