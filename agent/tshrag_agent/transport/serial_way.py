"""What an operator says of a serial DUT: its transport table in ``agent.toml``."""

from tshrag_agent.transport.console import Pace
from tshrag_agent.transport.line import LineSettings
from tshrag_agent.transport.login import Login
from tshrag_agent.transport.ways import RunDir, Seconds


class SerialWay(LineSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The DUT has a console: the line's own fields, how fast to type, how to log in.

    The fence is kept in ``run_dir`` on the DUT; empty: ``/run/tshrag`` for root, else
    ``/tmp/tshrag-UID``. ``grace_s`` lie between SIGTERM and SIGKILL.
    """

    pace: Pace = Pace()
    login: Login = Login()
    run_dir: RunDir = ""
    grace_s: Seconds = 5.0

    @property
    def line(self) -> LineSettings:
        """Return the part that opens the line."""
        names = LineSettings.__struct_fields__
        return LineSettings(**{name: getattr(self, name) for name in names})
