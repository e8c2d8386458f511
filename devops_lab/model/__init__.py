"""The lab's records: frozen, typed, with units in their names, and no input or output.

Times are POSIX seconds (float). A record that the store keeps has a `key`, unique within its kind.
"""

from devops_lab.model.delivery import *  # noqa: F403
from devops_lab.model.feedback import *  # noqa: F403
from devops_lab.model.grading import *  # noqa: F403
from devops_lab.model.lab import *  # noqa: F403
from devops_lab.model.planning import *  # noqa: F403
from devops_lab.model.production import *  # noqa: F403
