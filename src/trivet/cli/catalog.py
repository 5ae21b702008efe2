"""Every command there is, in the order of the help: what it is called, where it lives, what it does.

A command has a long spelling (`trivet instance ls`) and perhaps a short one (`trivet ps`). Modules are
imported when their command is typed.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from trivet.cli.command import Command


class Entry(NamedTuple):
    """One row: the words of either spelling, the module and key of its `Command`, one line of help."""

    group: str
    short: str
    long: str
    module: str
    key: str
    summary: str

    @property
    def spelling(self) -> str:
        """The spelling people should learn."""
        return self.short or self.long

    def command(self) -> Command:
        """Import the module that knows the command."""
        commands: dict[str, Command] = import_module(f"trivet.cli.{self.module}").COMMANDS
        return commands[self.key]


MACHINE = "machines"
RUN, LOOK, INSIDE, IMAGES = "run", "look", "go inside", "images"
STORE, COMPOSE, ENGINE = "volumes and networks", "applications", "engine"

NOUNS = {
    "instance": "what runs, or did, or will",
    "snapshot": "instances as they once were",
    "capacity": "what may be promised, and is used",
    "lint": "what is dangerous",
    "vm": "machines with an operating system of their own",
    "image": "what instances are made from",
    "artifact": "files in registries",
    "builder": "what builds remember",
    "registry": "where images come from and go to",
    "volume": "data that outlives an instance",
    "secret": "what instances are given and nobody is shown",
    "network": "what instances talk over",
    "policy": "who may talk to whom",
    "compose": "applications of several services, from compose files",
    "system": "the engine itself",
}

MEANT = {"snapshot": "create", "capacity": "show"}
"""What a noun means that is followed by none of its verbs: `trivet snapshot db`."""
ALONE = ("capacity",)
"""Nouns that mean it by themselves, too."""

ENTRIES = (
    Entry(RUN, "run", "instance run", "run", "run", "create an instance, start it and stay with it"),
    Entry(RUN, "create", "instance create", "run", "create", "create an instance without starting it"),
    Entry(RUN, "", "lint run", "lint", "run", "tell what the options of a run would open"),
    Entry(RUN, "start", "instance start", "session", "start", "start instances"),
    Entry(RUN, "stop", "instance stop", "instance", "stop", "ask instances to end, kill them after a grace"),
    Entry(RUN, "restart", "instance restart", "instance", "restart", "stop and start instances"),
    Entry(RUN, "kill", "instance kill", "instance", "kill", "send a signal to instances"),
    Entry(RUN, "pause", "instance pause", "instance", "pause", "freeze instances"),
    Entry(RUN, "unpause", "instance unpause", "instance", "unpause", "thaw instances"),
    Entry(RUN, "wait", "instance wait", "instance", "wait", "wait until instances end, print their exit codes"),
    Entry(RUN, "rename", "instance rename", "instance", "rename", "give an instance another name"),
    Entry(RUN, "update", "instance update", "outcome", "update", "change limits, restart policy and ports"),
    Entry(RUN, "rm", "instance rm", "instance", "rm", "remove instances"),
    Entry(RUN, "", "instance prune", "instance", "prune", "remove all instances that don't run"),
    Entry(RUN, "", "snapshot create", "checkpoint", "snapshot", "save what an instance is, and let it go on"),
    Entry(RUN, "", "snapshot ls", "checkpoint", "ls", "list snapshots of instances"),
    Entry(RUN, "", "snapshot revert", "checkpoint", "revert", "let an instance be what a snapshot says"),
    Entry(RUN, "", "snapshot rm", "checkpoint", "rm", "remove snapshots of an instance"),
    Entry(RUN, "checkpoint", "instance checkpoint", "checkpoint", "checkpoint", "save an instance and end it"),
    Entry(RUN, "restore", "instance restore", "checkpoint", "restore", "let an instance go on that was saved"),
    Entry(RUN, "relevel", "instance relevel", "checkpoint", "relevel", "change the isolation level of an instance"),
    Entry(RUN, "clone", "instance clone", "checkpoint", "clone", "make copies of an instance, running if it runs"),
    Entry(LOOK, "ps", "instance ls", "instance", "ls", "list instances"),
    Entry(LOOK, "inspect", "", "system", "inspect", "show everything about an object, as JSON"),
    Entry(LOOK, "", "instance inspect", "instance", "inspect", "show everything about instances, as JSON"),
    Entry(LOOK, "logs", "instance logs", "log", "logs", "show what an instance wrote"),
    Entry(LOOK, "stats", "instance stats", "stat", "stats", "show what instances use, live"),
    Entry(LOOK, "", "capacity show", "capacity", "show", "show what is promised, used and expected"),
    Entry(LOOK, "", "capacity plan", "capacity_plan", "plan", "tell what would come of further instances"),
    Entry(LOOK, "", "capacity history", "capacity_plan", "history", "show the last hour, and how good forecasts were"),
    Entry(LOOK, "top", "instance top", "instance", "top", "list the processes of an instance"),
    Entry(LOOK, "port", "instance port", "instance", "port", "list the published ports of an instance"),
    Entry(INSIDE, "exec", "instance exec", "session", "exec", "run a further program in an instance"),
    Entry(INSIDE, "attach", "instance attach", "session", "attach", "connect to a running instance"),
    Entry(INSIDE, "diff", "instance diff", "outcome", "diff", "list what an instance changed in its root"),
    Entry(INSIDE, "export", "instance export", "outcome", "export", "write an instance's root to a tar"),
    Entry(INSIDE, "cp", "instance cp", "copy", "cp", "copy files between the host and an instance"),
    Entry(IMAGES, "images", "image ls", "image", "ls", "list images"),
    Entry(IMAGES, "pull", "image pull", "image", "pull", "fetch an image"),
    Entry(IMAGES, "push", "image push", "image", "push", "send an image to a registry"),
    Entry(IMAGES, "build", "image build", "build", "build", "build an image from a Dockerfile"),
    Entry(IMAGES, "load", "image load", "image", "load", "read images from a tar"),
    Entry(IMAGES, "save", "image save", "image", "save", "write images to a tar"),
    Entry(IMAGES, "import", "image import", "image", "import", "make an image from a root file system or a disk"),
    Entry(IMAGES, "", "image export", "disk", "export", "write a disk image to a file"),
    Entry(IMAGES, "commit", "instance commit", "outcome", "commit", "make an image of an instance"),
    Entry(IMAGES, "history", "image history", "outcome", "history", "list how an image came about"),
    Entry(IMAGES, "sbom", "image sbom", "bill", "sbom", "list the packages in an image"),
    Entry(IMAGES, "tag", "image tag", "image", "tag", "give an image a further name"),
    Entry(IMAGES, "rmi", "image rm", "image", "rm", "remove images"),
    Entry(IMAGES, "login", "registry login", "registry", "login", "log in to a registry"),
    Entry(IMAGES, "logout", "registry logout", "registry", "logout", "forget the login to a registry"),
    Entry(IMAGES, "", "registry serve", "registry", "serve", "be a registry"),
    Entry(IMAGES, "", "registry ca", "registry", "ca", "print the authority behind a registry's certificate"),
    Entry(IMAGES, "", "image referrers", "artifact", "referrers", "list what refers to an image in its registry"),
    Entry(IMAGES, "", "artifact push", "artifact", "push", "send files to a registry"),
    Entry(IMAGES, "", "artifact attach", "artifact", "attach", "send files about an image to its registry"),
    Entry(IMAGES, "", "artifact pull", "artifact", "pull", "fetch files from a registry"),
    Entry(IMAGES, "", "image inspect", "image", "inspect", "show everything about images, as JSON"),
    Entry(IMAGES, "", "image prune", "image", "prune", "remove images nothing uses"),
    Entry(IMAGES, "why", "image why", "image", "why", "tell what keeps a blob in the store"),
    Entry(IMAGES, "", "builder prune", "build", "prune", "empty the build cache"),
    Entry(STORE, "", "volume create", "volume", "create", "create a volume"),
    Entry(STORE, "", "volume ls", "volume", "ls", "list volumes"),
    Entry(STORE, "", "volume inspect", "volume", "inspect", "show everything about volumes, as JSON"),
    Entry(STORE, "", "volume rm", "volume", "rm", "remove volumes and their data, or snapshots"),
    Entry(STORE, "", "volume resize", "volume", "resize", "let a volume that was made with a size hold more"),
    Entry(STORE, "", "volume snapshot", "volume", "snapshot", "take a snapshot of a volume, also while it is in use"),
    Entry(STORE, "", "volume snapshots", "volume", "snapshots", "list snapshots"),
    Entry(STORE, "", "volume rollback", "volume", "rollback", "make a volume what a snapshot says"),
    Entry(STORE, "", "volume clone", "volume", "clone", "copy a volume or a snapshot into a new volume"),
    Entry(STORE, "", "volume rename", "volume", "rename", "give a volume another name"),
    Entry(STORE, "", "volume export", "volume", "export", "write a volume to a tar"),
    Entry(STORE, "", "volume import", "volume", "import", "make a volume of a tar"),
    Entry(STORE, "", "volume push", "volume", "push", "send a snapshot of a volume to a registry"),
    Entry(STORE, "", "volume pull", "volume", "pull", "fetch a snapshot of a volume from a registry"),
    Entry(STORE, "", "volume prune", "volume", "prune", "remove anonymous volumes nothing uses"),
    Entry(STORE, "", "secret create", "secret", "create", "keep a secret"),
    Entry(STORE, "", "secret ls", "secret", "ls", "list secrets"),
    Entry(STORE, "", "secret inspect", "secret", "inspect", "describe secrets, as JSON, without what they hold"),
    Entry(STORE, "", "secret rm", "secret", "rm", "forget secrets"),
    Entry(STORE, "", "network create", "network", "create", "create a network"),
    Entry(STORE, "", "network ls", "network", "ls", "list networks"),
    Entry(STORE, "", "network inspect", "network", "inspect", "show everything about networks, as JSON"),
    Entry(STORE, "", "network connect", "network", "connect", "put an instance on a network, running or not"),
    Entry(STORE, "", "network disconnect", "network", "disconnect", "take an instance from a network"),
    Entry(STORE, "", "network why", "why", "why", "tell which rule lets a packet pass, or drops it"),
    Entry(STORE, "", "policy apply", "policy", "apply", "say who may talk to whom, by labels"),
    Entry(STORE, "", "policy ls", "policy", "ls", "list policies"),
    Entry(STORE, "", "policy inspect", "policy", "inspect", "show everything about policies, as JSON"),
    Entry(STORE, "", "policy rm", "policy", "rm", "take policies out of force"),
    Entry(STORE, "", "policy log", "policy", "log", "show what policies allowed and denied"),
    Entry(STORE, "", "network rm", "network", "rm", "remove networks"),
    Entry(STORE, "", "network prune", "network", "prune", "remove networks nothing uses"),
    Entry(COMPOSE, "", "compose up", "compose.command", "up", "make an application as its files say"),
    Entry(COMPOSE, "", "compose down", "compose.command", "down", "stop and remove an application"),
    Entry(COMPOSE, "", "compose plan", "compose.command", "plan", "tell what `up` would do"),
    Entry(COMPOSE, "", "compose ps", "compose.command", "ps", "list the instances of an application"),
    Entry(COMPOSE, "", "compose logs", "compose.command", "logs", "show what its instances wrote"),
    Entry(COMPOSE, "", "compose config", "compose.command", "config", "show what the files mean"),
    Entry(COMPOSE, "", "compose ls", "compose.command", "ls", "list applications"),
    Entry(COMPOSE, "", "compose start", "compose.command", "start", "start services"),
    Entry(COMPOSE, "", "compose stop", "compose.command", "stop", "stop services"),
    Entry(COMPOSE, "", "compose restart", "compose.command", "restart", "restart services"),
    Entry(COMPOSE, "", "compose kill", "compose.command", "kill", "send a signal to services"),
    Entry(COMPOSE, "", "compose pause", "compose.command", "pause", "freeze services"),
    Entry(COMPOSE, "", "compose unpause", "compose.command", "unpause", "thaw services"),
    Entry(COMPOSE, "", "compose rm", "compose.command", "rm", "remove instances that don't run"),
    Entry(COMPOSE, "", "compose exec", "compose.command", "exec", "run a further program in a service"),
    Entry(COMPOSE, "", "compose run", "compose.command", "run", "run a service once, with another command"),
    Entry(COMPOSE, "", "compose top", "compose.command", "top", "list the processes of services"),
    Entry(COMPOSE, "", "compose port", "compose.command", "port", "print where a port is published"),
    Entry(COMPOSE, "", "compose build", "compose.command", "build", "build the images of services"),
    Entry(COMPOSE, "", "compose pull", "compose.command", "pull", "pull the images of services"),
    Entry(COMPOSE, "", "compose push", "compose.command", "push", "push the images of services"),
    Entry(COMPOSE, "", "compose images", "compose.command", "images", "list the images of an application"),
    Entry(COMPOSE, "", "compose watch", "compose.command", "watch", "sync, rebuild or restart when files change"),
    Entry(COMPOSE, "", "compose create", "compose.command", "create", "make what isn't there, without starting it"),
    Entry(COMPOSE, "", "compose scale", "compose.command", "scale", "let there be so many instances of services"),
    Entry(COMPOSE, "", "compose convert", "compose.command", "config", "show what the files mean, as `config`"),
    Entry(COMPOSE, "", "compose cp", "compose.command", "cp", "copy files between the host and a service"),
    Entry(COMPOSE, "", "compose attach", "compose.command", "attach", "connect to a running service"),
    Entry(COMPOSE, "", "compose wait", "compose.command", "wait", "wait until services end, print their exit codes"),
    Entry(COMPOSE, "", "compose events", "compose.command", "events", "follow what happens to an application"),
    Entry(COMPOSE, "", "compose stats", "compose.command", "stats", "show what services use"),
    Entry(COMPOSE, "", "compose volumes", "compose.command", "volumes", "list the volumes of an application"),
    Entry(COMPOSE, "", "compose export", "compose.command", "export", "write a service's root to a tar"),
    Entry(COMPOSE, "", "compose commit", "compose.command", "commit", "make an image of a service's instance"),
    Entry(COMPOSE, "", "compose version", "compose.command", "version", "tell the versions of command and engine"),
    Entry(MACHINE, "", "vm create", "vm.create", "create", "make a machine from a disk image, an ISO or the network"),
    Entry(MACHINE, "", "vm start", "vm.life", "start", "switch machines on"),
    Entry(MACHINE, "", "vm stop", "vm.life", "stop", "press the power button, pull the plug after a grace"),
    Entry(MACHINE, "", "vm reboot", "vm.life", "reboot", "have machines reboot"),
    Entry(MACHINE, "", "vm rm", "vm.life", "rm", "remove machines and their disks"),
    Entry(MACHINE, "", "vm ls", "vm.life", "ls", "list machines"),
    Entry(MACHINE, "", "vm images", "vm.image", "images", "list the disk images of a catalogue"),
    Entry(MACHINE, "", "vm info", "vm.life", "info", "show what a machine is made of, and what its guest says"),
    Entry(
        MACHINE,
        "",
        "vm device",
        "vm.device",
        "device",
        "shared directories, USB sticks, a watchdog: list, add, remove",
    ),
    Entry(MACHINE, "", "vm disk", "vm.disk", "disk", "list, add, resize, limit and remove disks, also while it runs"),
    Entry(MACHINE, "", "vm backup", "vm.backup", "backup", "back machines up, whole or what changed; prove it"),
    Entry(MACHINE, "", "vm restore", "vm.backup", "restore", "make a machine of a backup"),
    Entry(MACHINE, "", "vm export", "vm.archive", "export", "write a machine to an OVA, its root disk to any format"),
    Entry(MACHINE, "", "vm import", "vm.archive", "import", "make a machine of an OVA"),
    Entry(MACHINE, "", "vm commit", "vm.archive", "commit", "make a disk image of a machine, for further ones"),
    Entry(MACHINE, "", "vm console", "vm.screen", "console", "connect to a machine's serial console"),
    Entry(MACHINE, "", "vm screenshot", "vm.screen", "screenshot", "take a picture of a machine's screen"),
    Entry(MACHINE, "", "vm view", "vm.view", "view", "show a machine's screen in the browser, with keyboard and mouse"),
    Entry(MACHINE, "", "vm send-key", "vm.screen", "send-key", "press keys on a machine's keyboard"),
    Entry(MACHINE, "", "vm type", "vm.screen", "type", "type a text on a machine's keyboard"),
    Entry(
        ENGINE, "info", "system info", "system", "info", "describe the engine, the machine and what each level can do"
    ),
    Entry(ENGINE, "events", "system events", "system", "events", "show what happens, as it happens"),
    Entry(ENGINE, "version", "system version", "system", "version", "show the versions of command and engine"),
    Entry(ENGINE, "", "system df", "system", "df", "show what takes how much disk space"),
    Entry(ENGINE, "", "system check", "system", "check", "verify the store and the records"),
    Entry(ENGINE, "", "system prune", "system", "prune", "remove everything nothing uses"),
    Entry(ENGINE, "completion", "", "completion", "completion", "print a completion script for a shell"),
)

BY_WORDS = {words: entry for entry in ENTRIES for words in (entry.short, entry.long) if words}
