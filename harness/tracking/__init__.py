"""W&B as a mirror of a sweep's local files: its mirrors (processes of their own), and the way back as a table."""

from harness.tracking.config import TrackingConfig as TrackingConfig
from harness.tracking.log import PLAN as PLAN
from harness.tracking.mirrors import log_comparison as log_comparison
from harness.tracking.mirrors import log_fit as log_fit
from harness.tracking.mirrors import log_forecast as log_forecast
from harness.tracking.mirrors import start as start
from harness.tracking.mirrors import wait as wait
from harness.tracking.mirrors import wait_for_own as wait_for_own
