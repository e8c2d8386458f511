"""What Deploy and Operate stand on: rollouts, canaries and drills."""
