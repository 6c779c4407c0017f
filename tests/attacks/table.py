"""The whole table: every row of the categories that concern the sandbox, here, tested elsewhere, or named as to come."""

from __future__ import annotations

import rows_files
import rows_limits
import rows_output
import rows_processes
from attack import Attack

ROWS: tuple[Attack, ...] = (*rows_files.ROWS, *rows_processes.ROWS, *rows_limits.ROWS, *rows_output.ROWS)
