"""What this program is, and which lab it means."""

import click

from tshrag_controller.cli import options


@options.command(examples=("tshrag version",))
def version() -> None:
    """Print the version."""
    from importlib.metadata import version

    click.echo(f"tshrag {version('tshrag-controller')}")


@click.group()
def config() -> None:
    """Which lab is meant, as whom, and what says so."""


@config.command(
    "show", cls=options.Command, examples=("tshrag config show", "tshrag config show --json")
)
@options.readable
@options.in_lab
def show(connection: object, output: str) -> None:
    """Show url, credentials and org, each with the flag, variable or file that it comes from.

    Flags go before variables (TSHRAG_NATS_URL, TSHRAG_CREDS, TSHRAG_ORG), those before
    ./.tshrag.toml, ~/.config/tshrag/tshrag.toml and /etc/tshrag/tshrag.toml, and last comes the
    lab that a controller runs on this machine.
    """
    import msgspec

    from tshrag_controller.cli import render
    from tshrag_controller.cli.context import Connection, Setting

    class Shown(msgspec.Struct, frozen=True, kw_only=True):
        url: Setting
        creds: Setting
        org: Setting

    assert isinstance(connection, Connection)
    shown = Shown(url=connection.url, creds=connection.creds, org=connection.org)
    rows = [(name, getattr(shown, name)) for name in shown.__struct_fields__]
    render.emit(
        output,
        shown,
        lambda out: out.print(
            render.table(
                ("setting", "value", "from"),
                [(name, each.value or "-", each.origin) for name, each in rows],
            )
        ),
        [connection.url.value],
    )
