"""What is judged, how to get hold of it, and how to run it. Frameworks are imported only when an implementation needs one."""

from .executor import Executor, executor_for, unavailable
from .implementation import Implementation
from .loading import as_implementation, load
from .registered import REGISTERED

__all__ = ["REGISTERED", "Executor", "Implementation", "as_implementation", "executor_for", "load", "unavailable"]
