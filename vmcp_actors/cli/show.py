"""How things look in a terminal."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from rich.tree import Tree

_STYLES = {"ready": "green", "connecting": "yellow", "waiting": "yellow", "unavailable": "red", "closed": "dim"}


def status_tree(answer: dict[str, Any]) -> Tree:
    """The tree of a gateway from its `/status`. Raises ValueError when it is not the status of a gateway."""
    try:
        return _status_tree(answer)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError("what answers there is not a vmcp-actors gateway of this version") from error


def one_line(text: str) -> str:
    """A text that came over the network, fit for a terminal: one line, no control characters."""
    return "".join(character if character.isprintable() else " " for character in text)


def _status_tree(answer: dict[str, Any]) -> Tree:
    supervisor = answer["supervisor"]
    tree = Tree(Text(f"{answer['name']} {answer['version']}", style="bold"))
    label = f"supervisor: {supervisor['sessions']} sessions, {supervisor['started']} started"
    if supervisor["draining"]:
        label += ", draining"
    for health in answer["health"]:
        text = Text(f"{health['backend']}: {health['status']}, circuit {health['circuit']}")
        if health["last_failure"] and health["status"] != "healthy":
            text.append(f" ({one_line(health['last_failure'])})")
        tree.add(text)
    sessions = tree.add(Text(label))
    for session in answer["sessions"]:
        idle = "in use" if session["idle"] is None else f"idle {session['idle']:.0f} s"
        line = f"{session['name']}: {session['tools']} tools, {session['running_calls']} calls running, {idle}"
        branch = sessions.add(Text(line))
        for backend in session["backends"]:
            text = Text(f"{backend['backend']}: ")
            text.append(backend["state"], style=_STYLES.get(backend["state"], ""))
            text.append(f", {backend['tools']} tools, {backend['handled_calls']} calls")
            if backend["reason"]:
                text.append(f" ({one_line(backend['reason'])})")
            branch.add(text)
    return tree
