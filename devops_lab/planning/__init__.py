"""What Plan stands on: the backlog, its sprints and what they were worth."""
