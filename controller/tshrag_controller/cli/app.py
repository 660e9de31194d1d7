"""``tshrag``: the tree of commands, and how it ends.

A room of commands is imported when one of them is called: `tshrag --help` and `tshrag version`
load neither NATS nor rich, so the tables below say in one line what each command does.

Exit codes: 0 passed, 1 failed or in error, 2 usage or refused, 3 unavailable, 4 cancelled,
5 timed out or expired, 130 interrupted (docs/decisions/0055).
"""

import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence

import click

from tshrag_controller.cli.options import write_examples

ROOMS = "tshrag_controller.cli"
INTERRUPTED = 130

SECTIONS: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Run a test": {
        "submit": ("submit:submit", "Submit a profile as a run."),
        "plan": ("submit:plan", "Show what a submit would do, and where; change nothing."),
        "validate": (
            "documents:validate",
            "Name each problem of profiles and manifests, offline.",
        ),
        "schema": ("documents:schema", "Print the JSON Schema of a profile or a load manifest."),
        "watch": ("follow:watch", "Watch a run live until it ends."),
        "wait": ("follow:wait", "Wait for a run; the exit code is its verdict."),
        "cancel": ("runs:cancel", "Cancel a run or a job, and show what was stopped."),
        "retry": ("submit:retry", "Submit an earlier run again, with the same bytes."),
        "hold": ("suspend:hold", "Hold a run or a job back; what runs goes on."),
        "release": ("suspend:release", "Let a run or a job that was held back start again."),
        "reschedule": ("suspend:reschedule", "Move the window of a run."),
        "resolve": ("resolve:resolve", "Give up an attempt whose agent is away."),
    },
    "See what became of it": {
        "status": ("runs:status", "Show a run with its jobs, or one job with its attempts."),
        "list": ("runs:list_runs", "List runs, newest first."),
        "logs": ("logs:logs", "Show the output of a job."),
        "report": ("report:report", "Make a run report: table, Markdown, JSON, JUnit, HTML."),
        "metrics": ("metrics:metrics", "Show, plot or export the samples of a run."),
        "compare": ("compare:compare", "Compare the metrics of runs, with confidence intervals."),
        "trend": ("trend:trend", "Show a metric over many runs, and where its level changed."),
        "judge": ("judge:judge", "Judge stored runs again, by other criteria."),
        "query": ("query:query", "Ask SQL of all samples, hot and cold."),
    },
    "Why does it wait": {
        "why": ("runs:why", "Say why a job is where it is, place by place."),
        "queue": ("outlooks:queue", "Show the lines: who waits for what, who is next, and when."),
        "explain": ("outlooks:explain", "Explain what the lab decided: placement JOB."),
        "simulate": (
            "simulate:simulate",
            "Try the scheduler on a lab and its work, at once.",
        ),
        "history": ("history:history", "Write the work of a lab into a file: export."),
    },
    "Boards": {
        "dut": ("lab:dut", "DUTs: list, show, quarantine, return."),
        "lease": ("leases:lease", "Leases: take a board for yourself, renew, share, give back."),
        "console": ("console:console", "Sit at a board's console, or read what it said."),
        "expose": ("expose:expose", "Make a console a TCP port of this machine."),
        "power": ("boards:power", "Switch the power of a board, or ask for it."),
        "boot": ("boards:boot", "Bring a board to its bootloader, a shell, or off."),
        "ssh": ("tunnels:ssh", "Log in to a board with OpenSSH, through the lab."),
        "ssh-config": (
            "tunnels:ssh_config",
            "Print ssh_config: ssh, scp, rsync work as always.",
        ),
        "forward": ("tunnels:forward", "Reach a TCP port of a board: a pipe or a local port."),
        "put": ("boards:put", "Copy a file or folder to a board."),
        "get": ("boards:get", "Copy a file or folder of a board."),
        "flaky": ("flaky:flaky", "Tell boards that fail from builds that fail."),
    },
    "Hosts": {
        "agent": ("agents:agent", "Agents: list, show, enroll, revoke, drain, return."),
        "exec": ("remote:exec_", "Start a process on a lab host, and follow it."),
        "process": (
            "remote:process",
            "Processes on a lab host: list, output, stdin, wait.",
        ),
    },
    "The lab": {
        "up": ("up:up", "Start a lab on this machine, in the foreground."),
        "demo": ("demo:demo", "Show a whole lab at work: boards, verdicts, a run report."),
        "health": ("lab:health", "Say whether the lab is well; not 0 where it is not."),
        "stats": ("lab:stats", "Show the counters of the lab."),
        "controller": ("controllers:controller", "Controllers: list, add one that stands by."),
        "store": ("store:store", "The store of samples: status, seal, verify, export, import, gc."),
        "audit": ("audit:audit", "Show who did what to boards and hosts."),
        "user": ("agents:user", "People: add, revoke."),
        "keys": ("keys:keys", "The lab's own keys: rotate."),
        "chaos": ("chaos:chaos", "Hold a drill on a live lab, and time how it recovers."),
    },
    "This program": {
        "config": ("about:config", "Show which lab is meant, and what says so."),
        "shell": ("shell:shell", "A prompt that takes all of these commands."),
        "version": ("about:version", "Print the version."),
    },
}
COMMANDS: Mapping[str, tuple[str, str]] = {
    name: row for rows in SECTIONS.values() for name, row in rows.items()
}


class LazyGroup(click.Group):
    """The root: knows the names of its commands, and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = COMMANDS.get(cmd_name)
        if found is None:
            return None
        room, _, name = found[0].partition(":")
        command = getattr(importlib.import_module(f"{ROOMS}.{room}"), name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; name the nearest where there is none."""
        if args and not ctx.resilient_parsing and args[0] not in COMMANDS and args[0][:1] != "-":
            from tshrag_common.errors import did_you_mean

            near = did_you_mean(args[0], COMMANDS) or "see 'tshrag --help'"
            ctx.fail(f"no command {args[0]!r}; {near}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what one wants of them, without a look into their rooms."""
        for title, rows in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<11}", about) for name, (_, about) in rows.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, EXAMPLES)


EXAMPLES = (
    "tshrag up                            # in one terminal: a lab on this machine",
    "tshrag submit smoke.yaml --watch     # in another: run a profile, watch it",
    "tshrag status last                   # the newest run; last:2 is its second job",
    "tshrag why last                      # why does it wait?",
    "tshrag report last --format html --out run.html",
    'eval "$(_TSHRAG_COMPLETE=bash_source tshrag)"   # completion; also zsh_, fish_source',
)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tshrag-controller", prog_name="tshrag")
def app() -> None:
    """Run tests on a lab of hosts and boards, and read their verdicts.

    Exit codes: 0 passed, 1 failed or in error, 2 usage or refused, 3 unavailable, 4 cancelled,
    5 timed out or expired, 130 interrupted.
    """


def main() -> None:
    """Run the command line and leave with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(invoke(None))


def invoke(words: Sequence[str] | None) -> int:
    """Carry out one command line of `tshrag`."""
    return invoke_group(app, "tshrag", words)


def invoke_group(group: click.Group, name: str, words: Sequence[str] | None = None) -> int:
    """Carry out one command line; every error that a person caused is one line on stderr."""
    try:
        done = group.main(words, prog_name=name, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error), err=True)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader had enough; the interpreter must not flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return _refused(error)
    return done if isinstance(done, int) else 0


def _refused(error: Exception) -> int:
    """Print the one line of an error of the lab, or of a file that a person named.

    Anything else is a bug of ours and raised.
    """
    from tshrag_common.errors import Invalid, LabError, Refused
    from tshrag_controller.reports.text import clean_lines

    if isinstance(error, OSError) and isinstance(error.filename, str):
        why = (error.strerror or "cannot be used").lower()
        error = Refused(error.filename, why, "name another file", code="file")
    if not isinstance(error, LabError):
        raise error
    line = error.line if not isinstance(error, Invalid) or error.problems else f"invalid: {error}"
    click.echo(clean_lines(line), err=True)
    return 3 if error.retryable else 2


if __name__ == "__main__":
    main()
