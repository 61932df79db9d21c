"""One sweep from its command line to its run table: compose, plan, launch, show."""

import gc
import multiprocessing

if multiprocessing.parent_process() is not None:  # a worker of a pool, which has not imported the script
    gc.disable()  # until set_environment
