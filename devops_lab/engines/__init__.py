"""What runs the replicas: processes of this machine, containers, or tasks of a cluster."""

from devops_lab.engines.choosing import Choice, choose, chosen

__all__ = ["Choice", "choose", "chosen"]
