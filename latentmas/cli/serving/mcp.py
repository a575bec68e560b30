"""The command that offers a team as a tool of the Model Context Protocol: mcp."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from latentmas.cli.support.console import note
from latentmas.cli.support.options import Device, Team
from latentmas.cli.support.run_options import seed_of, takes_run_options
from latentmas.cli.support.team import open_team
from latentmas.plan import RunOptions

__all__ = ["mcp"]


@takes_run_options("num_return_sequences", "batch_size", "refill_threshold", "on_error")
def mcp(
    team: Team,
    *,
    options: RunOptions,
    device: Device = "cpu",
    http: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            metavar="PORT",
            help="Port on which to serve clients of this machine over HTTP, instead of stdin and "
            "stdout.",
        ),
    ] = None,
) -> None:
    """Serve a team as a tool for assistants and agents (Model Context Protocol).

    The tool's arguments are the graph's inputs, and rounds, latent_steps and max_new_tokens, which
    replace the options given here.
    """
    from latentmas.serve.mcp import serve_http, serve_stdio

    with redirect_stdout(sys.stderr):  # stdout belongs to the protocol
        system = open_team(team, device=device, seed=seed_of(options))
    if http is None:
        serve_stdio(system, options)
    else:
        note(f"serving at http://127.0.0.1:{http}/mcp; press Ctrl-C to end")
        serve_http(system, http, options)
