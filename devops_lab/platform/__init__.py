"""The machine room: agent, monitoring, engines, traffic, store, and the tools that they share."""
