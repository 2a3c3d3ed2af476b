"""Processes as the system knows them: how one ended, who descends from it, and signals for whole groups.

psutil knows a reused process id by its start time, so what was noted a while ago is never mistaken for a stranger.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

import psutil

# Of the fields of /proc/PID/stat behind the name: the start, in ticks since the machine's.
_STARTED = 19


def how_it_ended(status: int) -> str:
    """`status` as subprocess has it: negative for a signal."""
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"signal {signal.Signals(-status).name.removeprefix('SIG')}"
    except ValueError:
        return f"signal {-status}"


def born(pid: int) -> str:
    """What tells a process from a later one of the same number: when it started, as the kernel counts. Raises psutil.Error.

    Not psutil's time of day, which is another one after the clock was set.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_STARTED]
    except FileNotFoundError:  # It is gone, or this is no Linux.
        return str(psutil.Process(pid).create_time())


def descendants(pid: int, *, deep: bool = True) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=deep)
    except psutil.Error:
        return []


def groups(processes: Iterable[psutil.Process]) -> set[int]:
    """Their process groups; a process that is gone has none."""
    found = set()
    for process in processes:
        try:
            found.add(os.getpgid(process.pid))
        except ProcessLookupError:
            continue
    return found


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """Signal the groups of those that still live; never our own group."""
    for group in groups(process for process in processes if is_alive(process)) - {os.getpgrp()}:
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
