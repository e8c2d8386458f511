"""The continuous modes: what `git push` sets off."""
