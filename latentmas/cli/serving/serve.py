"""The command that puts a team behind HTTP: serve."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from latentmas.cli.support.console import note
from latentmas.cli.support.options import Device, Team, files_of
from latentmas.cli.support.team import open_team

__all__ = ["serve"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine for itself."""
Host = Annotated[
    str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines connect.")
]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar="LATENTMAS_API_KEY",
        show_envvar=True,
        help="Key that clients must send; may be repeated. Other users of this machine can read "
        "command lines, so prefer the variable. Default: no key is needed.",
    ),
]
AllowedHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Name that the Host header may hold; may be repeated. Default: the names of this "
        "machine if only it can connect, else any."
    ),
]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(
        help="Origin whose web pages may read answers, such as https://example.org; may be "
        "repeated. Default: none."
    ),
]
Conversation = Annotated[
    Literal["join", "refuse"],
    typer.Option(help="What to do with a chat of more than one message: join it, or refuse it."),
]
Executor = Annotated[
    str | None,
    typer.Option(
        help="Executor, such as auto or cached. Default: the system's.",
        autocompletion=lambda: ["auto", *files_of("engine.executors")],
    ),
]


def serve(
    team: Team,
    host: Host = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    device: Device = "cpu",
    seed: Annotated[int, typer.Option(help="Random seed of untrained links.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="Model name for clients. Default: the name of the graph.")
    ] = None,
    api_key: ApiKey = None,
    playground: Annotated[
        bool, typer.Option("--playground", help="Also serve the page that shows the team at work.")
    ] = False,
    conversation: Conversation = "join",
    max_rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of answers that are written at once.")
    ] = 32,
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Maximum number of prompts that wait for a place.")
    ] = 256,
    max_body_bytes: Annotated[
        int, typer.Option(min=1, help="Maximum size of a request in bytes.")
    ] = 1 << 20,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum number of tokens that a client may ask for.")
    ] = 4096,
    max_rounds: Annotated[
        int, typer.Option(min=1, help="Maximum number of rounds that a client may ask for.")
    ] = 16,
    max_latent_steps: Annotated[
        int, typer.Option(min=1, help="Maximum number of latent steps that a client may ask for.")
    ] = 256,
    request_seconds: Annotated[
        float, typer.Option(min=0.001, help="Time limit for a request in seconds.")
    ] = 600.0,
    executor: Executor = None,
    warm_up: Annotated[
        bool,
        typer.Option(
            help="Capture CUDA graphs for --max-rows answers before requests are taken; without "
            "such graphs, nothing is done."
        ),
    ] = True,
    allowed_host: AllowedHost = None,
    cors_origin: CorsOrigin = None,
) -> None:
    """Serve a team over HTTP, with the endpoints of the OpenAI API."""
    from latentmas.serve import ServeSettings, create_app, open_socket, run_server

    local = host in ("localhost", "127.0.0.1", "::1")
    settings = ServeSettings(
        model=model,
        api_keys=tuple(api_key or ()),
        max_rows=max_rows,
        max_waiting=max_waiting,
        max_body_bytes=max_body_bytes,
        max_new_tokens=max_new_tokens,
        max_rounds=max_rounds,
        max_latent_steps=max_latent_steps,
        request_seconds=request_seconds,
        conversation=conversation,
        executor=executor,
        allowed_hosts=tuple(allowed_host or (LOOPBACK if local else ())),
        cors_origins=tuple(cors_origin or ()),
        playground=playground,
    )
    with open_socket(host, port) as sock:
        if not local and not settings.api_keys:
            note(
                f"warning: {host} can be reached from other machines, and no key is needed: set "
                "LATENTMAS_API_KEY, or leave out --host"
            )
        system = open_team(team, device=device, seed=seed)
        if warm_up:
            done = system.warm_up(batch_size=max_rows, executor=executor)
            if done.reason is None:
                note(str(done))
        app = create_app(system, settings)
        name = settings.model or app.state.engine.system.plan.graph.name
        run_server(
            app,
            sock=sock,
            on_start=lambda url: note(f"serving {name!r} on {url}/v1; press Ctrl-C to end"),
        )
