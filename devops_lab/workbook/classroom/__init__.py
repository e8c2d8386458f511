"""A class: hand-ins of labs, their grades, a report of all, and the editions of the notebooks."""

from devops_lab.workbook.classroom.pack import hand_in

__all__ = ["hand_in"]
