"""``reid serve``: galleries behind a page and an API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reidkit.cli.options import EncoderPath, given
from reidkit.cli.output import json_option, print_json, print_table, say, tell

if TYPE_CHECKING:
    from reidkit.web.audit import Entry
    from reidkit.web.settings import Settings
    from reidkit.web.users import User


class _GalleriesOrCommand(click.Group):
    """A group whose first word may also be a gallery, which is then served."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ({"-h", "--help"} & set(args[:1])) and (not args or args[0] not in self.commands):
            args = ["start", *args]
        return super().parse_args(ctx, args)


config_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), help="Settings of the service, a TOML file."
)
folder_option = click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where users, the audit log and uploads are kept.  [default: ~/.local/state/reidkit/serve]",
)


@click.group("serve", cls=_GalleriesOrCommand)
def serve_command() -> None:
    """Serve galleries to a team: a page to search and review on, and an API.

    \b
    reid serve people.gallery
    reid serve --demo                               # drawn people, to look around
    reid serve hall=hall.gallery postgresql://host/people --config serve.toml
    reid serve users add anna --role administrator
    reid serve audit verify

    It listens on 127.0.0.1, where whoever uses this machine may do all. For any other address, or once there
    are users, everybody has to log in or send a token. `reid serve start --help` lists the options.
    """


@serve_command.command("start")
@click.argument("galleries", nargs=-1, metavar="[GALLERY...]")
@click.option("--demo", is_flag=True, help="Draw people and serve them.")
@config_option
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8000]")
@folder_option
@click.option("--encoder", type=EncoderPath(), help="Encoder of the galleries, if it moved.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that serve.  [default: 1]")
@click.option("--require-purpose", is_flag=True, help="Refuse searches that do not say what they are for.")
@click.option("--certificate", type=click.Path(path_type=Path), help="TLS certificate, .pem.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key, .pem.")
def start_command(galleries: tuple[str, ...], demo: bool, file: Path | None, **flags: Any) -> None:
    """Serve each GALLERY, a folder or a server's address; NAME=GALLERY gives it another name."""
    from reidkit.web import check_installed
    from reidkit.web.settings import load_settings

    check_installed()
    flags["require_purpose"] = flags["require_purpose"] or None
    if demo:
        from reidkit.web.demo import demo_gallery

        with progress_of_demo() as shown:
            galleries = (*galleries, f"demo={demo_gallery(encoder=flags['encoder'], progress=shown)}")
    serve_until_stopped(load_settings(file, galleries=galleries, **given(**flags)))


def serve_until_stopped(settings: Settings) -> None:
    from reidkit.web.serving import serve

    serve(settings, ready=print_ready)


def print_ready(address: str) -> None:
    say(f"serving on {address}; stop with ctrl-C")


def progress_of_demo() -> Any:
    from reidkit.progress import progress

    return progress("people drawn and embedded")


# --- users ------------------------------------------------------------------------------------------------


@serve_command.group("users")
def users_command() -> None:
    """Say who may use the service, and what they may do.

    Roles: a viewer searches and looks; a reviewer also says who is who; an operator also adds and removes; an
    administrator also sets retention, imports, and reads the audit log.
    """


@users_command.command("add")
@click.argument("name")
@click.option(
    "--role", default="viewer", show_default=True, help="viewer, reviewer, operator, administrator."
)
@click.option("--gallery", "galleries", multiple=True, help="In this gallery alone; may be repeated.")
@click.option("--no-password", is_flag=True, help="For programs, which send tokens.")
@config_option
@folder_option
def add_command(
    name: str,
    role: str,
    galleries: tuple[str, ...],
    no_password: bool,
    file: Path | None,
    folder: Path | None,
) -> None:
    """Add a user, or give one another role or password; the password is asked for."""
    from reidkit.web.roles import ALL, Role
    from reidkit.web.settings import load_settings
    from reidkit.web.user_rows import remarks

    wanted = Role.named(role)
    password = None if no_password else click.prompt("Password", hide_input=True, confirmation_prompt=True)
    users = users_of(file, folder)
    users.add(name, password=password, role=wanted, galleries=galleries or (ALL,))
    tell(f"{name} is {wanted.name} in {', '.join(galleries) or 'all galleries'}")
    print_remarks(remarks(users.all(), name, galleries, load_settings(file).galleries))


@users_command.command("list")
@config_option
@folder_option
@json_option
def list_command(file: Path | None, folder: Path | None, as_json: bool) -> None:
    """List users, their roles and their tokens."""
    print_users(users_of(file, folder).all(), as_json)


@users_command.command("remove")
@click.argument("name")
@click.option("--gallery", help="Take away the role in this gallery alone.")
@config_option
@folder_option
def remove_command(name: str, gallery: str | None, file: Path | None, folder: Path | None) -> None:
    """Remove a user, with all tokens and sessions."""
    users = users_of(file, folder)
    if gallery is None:
        users.remove(name)
        tell(f"removed {name}")
    else:
        users.revoke_role(name, gallery)
        tell(f"{name} has no role in {gallery} any more")


@users_command.command("token")
@click.argument("name")
@click.option("--label", default="", help="What it is for.")
@click.option("--days", type=float, default=90, show_default=True, help="How long it is good for.")
@click.option(
    "--revoke", type=int, metavar="NUMBER", help="Make a token useless instead; `list` shows numbers."
)
@config_option
@folder_option
def token_command(
    name: str, label: str, days: float, revoke: int | None, file: Path | None, folder: Path | None
) -> None:
    """Make a token for a user's programs; it is shown once, and never again."""
    users = users_of(file, folder)
    if revoke is not None:
        users.revoke_token(name, revoke)
        tell(f"token {revoke} of {name} is good for nothing any more")
        return
    tell(users.make_token(name, label=label, days=days))
    say("keep it now: it is not shown again")


def users_of(file: Path | None, folder: Path | None) -> Any:
    from reidkit.web import check_installed
    from reidkit.web.settings import load_settings
    from reidkit.web.users import Users

    check_installed()
    return Users(load_settings(file, **given(folder=folder)).users_file)


def print_users(users: Sequence[User], as_json: bool) -> None:
    if as_json:
        print_json([_row_of_json(user) for user in users])
        return
    from reidkit.web.user_rows import COLUMNS, user_rows

    print_table(COLUMNS, user_rows(users))


def print_remarks(remarks: Sequence[str]) -> None:
    for remark in remarks:
        say(remark)


def _row_of_json(user: User) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(user), "roles": dict(zip(user.roles, map(_role, user.roles.values()), strict=True))}


def _role(role: Any) -> str:
    return str(role.name)


# --- the audit log ----------------------------------------------------------------------------------------


@serve_command.group("audit")
def audit_command() -> None:
    """Read the log of who asked for what, and check that nobody changed it."""


@audit_command.command("show")
@click.option("--last", type=click.IntRange(min=1), default=50, show_default=True, help="So many entries.")
@config_option
@folder_option
@json_option
def show_command(last: int, file: Path | None, folder: Path | None, as_json: bool) -> None:
    """Print the last entries, the newest first."""
    print_entries(audit_of(file, folder).last(last), as_json)


@audit_command.command("verify")
@click.option("--head", metavar="HASH", help="What an earlier check told: the log must still hold it.")
@config_option
@folder_option
def verify_command(head: str | None, file: Path | None, folder: Path | None) -> None:
    """Follow the chain of hashes; exit code 2 where an entry was changed, removed or put in."""
    found = audit_of(file, folder).verify(head)
    tell(f"all {found.num_entries:,} entries are as they were written; the last has the hash {found.head}")
    print_remarks(found.remarks)
    say("keep the hash elsewhere: a later check with --head shows whether the end was cut off since")


def audit_of(file: Path | None, folder: Path | None) -> Any:
    from reidkit.web.audit import WrittenLog
    from reidkit.web.settings import load_settings

    return WrittenLog(load_settings(file, **given(folder=folder)).audit_file)


def print_entries(entries: Sequence[Entry], as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        print_json([asdict(entry) for entry in entries])
        return
    for entry in entries:
        tell(entry)
