"""PURE: which step needs which, by name; unknown names and circles are found here.

A name is looked for around the step: among all steps of the same repetition first, then outside
of it. What is inside a repeat cannot be named from outside: there are many of it.
"""

from collections.abc import Iterable

from tshrag_common.errors import did_you_mean, shown
from tshrag_common.findings import Findings
from tshrag_common.positions import At
from tshrag_common.schedule import Step, children

Needed = dict[int, tuple[Step, ...]]
"""``id`` of a step -> the steps it needs. Holds as long as the tree is kept."""


def needed_steps(root: Step, at: At, findings: Findings) -> Needed:
    """Return what every step below `root` needs; note names that nothing has, and circles."""
    places = _Places(root, at)
    needed: Needed = {}
    for here, step, frame in places.steps:
        if step.needs:
            found = [
                _named(name, frame, (*here, "needs", n), findings)
                for n, name in enumerate(step.needs)
            ]
            needed[id(step)] = tuple(each for each in found if each is not None)
    circle = _circle(places.steps, needed)
    if circle:
        named = [_called(step) for step in circle]
        findings.add("cycle", (), " -> ".join([*named, named[0]]))
    return needed


class _Frame:
    """The names of one repetition, or of what is outside of all."""

    def __init__(self, outer: "_Frame | None") -> None:
        self.outer = outer
        self.names: dict[str, list[Step]] = {}


class _Places:
    def __init__(self, root: Step, at: At) -> None:
        self.steps: list[tuple[At, Step, _Frame]] = []
        stack = [(at, root, _Frame(None))]
        while stack:
            here, step, frame = stack.pop()
            self.steps.append((here, step, frame))
            if step.name:
                frame.names.setdefault(step.name, []).append(step)
            inner = frame if step.body is None else _Frame(frame)
            below = [(place, each, inner) for place, each in children(here, step)]
            stack.extend(reversed(below))


def _named(name: str, frame: _Frame, at: At, findings: Findings) -> Step | None:
    known: list[str] = []
    looked: _Frame | None = frame
    while looked is not None:
        found = looked.names.get(name, [])
        if len(found) > 1:
            findings.add("ambiguous_dependency", at, f"{len(found)} steps are named {shown(name)}")
            return None
        if found:
            return found[0]
        known.extend(looked.names)
        looked = looked.outer
    near = did_you_mean(name, known)
    findings.add("unknown_dependency", at, shown(name), near or "give that step a name")
    return None


def _called(step: Step) -> str:
    label = step.label
    return label if label.isprintable() and len(label) <= 40 else shown(label, 40)


_Node = tuple[int, bool]
"""``id`` of a step, and whether its end is meant or its begin."""


def _circle(steps: Iterable[tuple[At, Step, _Frame]], needed: Needed) -> list[Step]:
    """Return steps that wait for each other, each needing the next; empty when all can begin.

    A step begins after what stands before it and what it needs; it ends after all below it.
    """
    before: dict[_Node, list[_Node]] = {}
    known: dict[int, Step] = {}
    for here, step, _ in steps:
        own = id(step)
        known[own] = step
        before.setdefault((own, False), []).extend((id(each), True) for each in needed.get(own, ()))
        ends = before.setdefault((own, True), [])
        ends.append((own, False))
        last: _Node = (own, False)
        for _, child in children(here, step):
            before.setdefault((id(child), False), []).append(last)
            ends.append((id(child), True))
            last = (id(child), True) if step.sequence else last
    met = [known[own] for own, _ in _first_circle(before)]
    named = [step for step in met if step.name] or met
    return list({id(step): step for step in named}.values())


def _first_circle(before: dict[_Node, list[_Node]]) -> list[_Node]:
    """Walk backwards, depth first and without recursion; return the first way that closes."""
    done: set[_Node] = set()
    for start in before:
        way: dict[_Node, int] = {}  # in the order walked -> next of its predecessors to look at
        node: _Node | None = None if start in done else start
        while node is not None:
            way.setdefault(node, 0)
            if way[node] < len(before[node]):
                following = before[node][way[node]]
                way[node] += 1
                if following in way:
                    walked = list(way)
                    return walked[walked.index(following) :]
                node = node if following in done else following
                continue
            done.add(node)
            del way[node]
            node = next(reversed(way), None)
    return []
