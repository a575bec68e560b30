"""A worker of an evaluation: a team in a process of its own that answers calls."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import socket
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.controls import Control, make_control
from latentmas.evaluation.engines._calls import Call, Failure, Reply
from latentmas.evaluation.engines._packing import Payload, unpack_team
from latentmas.evaluation.runner import Lap
from latentmas.evaluation.settings import system_settings
from latentmas.plan import RunOptions
from latentmas.runtime import Event, SampleEnd, System

__all__ = ["TeamWorker", "lost_reply"]


class TeamWorker:
    """Answers calls with the rows that have ended, or with why they have not; it never raises.

    Teams and controls are loaded when a call first needs them, so that an error in loading is the
    answer to a call rather than the death of a process.
    """

    def __init__(self, payload: Payload) -> None:
        """Take what calls will need; nothing is loaded yet.

        Args:
            payload: teams, jobs and code.
        """
        self._payload = payload
        self._teams: dict[int, System] = {}
        self._controls: dict[str, Control] = {}
        self._objects: dict[str, Any] | None = None

    def answer(self, call: Call, *, attempt: int = 1) -> Reply:
        """Run the rows of a call.

        Args:
            call: what to run.
            attempt: number of times that the call has been begun, by any worker.
        """
        name = f"{socket.gethostname()}:{os.getpid()}"
        reply = Reply(
            number=call.number, job=call.job, rows=call.rows, worker=name, attempt=attempt
        )
        try:
            self._run(call, reply)
        except Exception as error:  # the process that started the evaluation raises it
            return Reply(**vars(reply) | {"failure": _failure(error)})
        return reply

    def _run(self, call: Call, reply: Reply) -> None:
        control, clock = self._control(call.job), Lap()

        def watch(event: Event) -> None:
            if isinstance(event, SampleEnd):
                reply.add(call.rows[event.sample], event, clock.lap())

        control.system.run(
            list(call.samples),
            options=RunOptions(**call.options),
            on_event=watch,
            edit_message=control.edit,
            **(self._objects or {}),
        )

    def _control(self, name: str) -> Control:
        """The system of a job, loaded on first use and compared with that of the sender."""
        if self._objects is None:
            self._import_code()
            self._objects = pickle.loads(self._payload.objects)
        if name not in self._controls:
            job = self._payload.jobs[name]
            if job.team not in self._teams:
                packed = self._payload.teams[job.team]
                self._teams[job.team] = unpack_team(packed, self._payload.device)
            base = self._teams[job.team]
            control = Control(base)
            if job.control is not None:
                control = make_control(job.control, base, twin_tokens=job.twin_tokens)
            found = system_settings(control.system)
            different = [part for part, value in job.settings.items() if found[part] != value]
            if different:
                raise LatentMASError(
                    f"{name} on this worker differs from the one that was sent in its "
                    f"{' and '.join(different)}; install the same versions on all machines, and "
                    "give backbones from the Hub a revision"
                )
            self._controls[name] = control
        return self._controls[name]

    def _import_code(self) -> None:
        """Import what registers link kinds, tools and the like.

        Raises:
            LatentMASError: the version of latentmas differs, or code cannot be imported.
        """
        wanted, found = self._payload.version, version("latentmas")
        if found != wanted:
            raise LatentMASError(
                f"this worker has latentmas {found}, and the evaluation was started with "
                f"{wanted}; install the same version on all machines"
            )
        for name, source in self._payload.plugins.items():
            _import_plugin(name, source)
        for module in self._payload.modules:
            try:
                importlib.import_module(module)
            except Exception as error:  # the user's own code
                raise LatentMASError(
                    f"module {module!r} cannot be imported on this worker: "
                    f"{type(error).__name__}: {error}; install it on all machines"
                ) from error


def lost_reply(call: Call, attempts: int) -> Reply:
    """The answer to a call whose workers have died.

    Args:
        call: the call.
        attempts: number of workers that have died.
    """
    told = (
        f"rows {min(call.rows)} to {max(call.rows)} of {call.job}: the worker process ended "
        f"{attempts} times while running them "
        "(killed, or out of memory); try a smaller batch_size, or give workers more memory"
    )
    return Reply(
        number=call.number,
        job=call.job,
        rows=call.rows,
        attempt=attempts + 1,
        failure=Failure("LatentMASError", told, lost=True),
    )


def _import_plugin(name: str, source: bytes) -> None:
    """Import a Python file that was sent along, under the name that the command line gives it."""
    module_name = f"latentmas_plugin_{Path(name).stem}"
    if module_name in sys.modules:  # this process has imported it: nothing has to travel
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(source)
        spec = importlib.util.spec_from_file_location(module_name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the user's own code
            del sys.modules[module_name]
            raise LatentMASError(
                f"plugin {name!r} fails on this worker: {type(error).__name__}: {error}; install "
                "what it imports on all machines"
            ) from error


def _failure(error: Exception) -> Failure:
    return Failure(
        kind=type(error).__name__,
        message=str(error) or repr(error),
        trace="".join(traceback.format_exception(error)),
        ours=isinstance(error, LatentMASError),
    )
