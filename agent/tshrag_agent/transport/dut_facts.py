"""The scripts that ask a DUT what it is, and the reading of their answers.

They go to ``/bin/sh`` on stdin: no length limit, no quoting by whatever the login shell is.
"""

import hashlib

from tshrag_agent.transport.base import DutProbe, ProcReading
from tshrag_agent.transport.launch import quote

PROC_FILES = (
    "/proc/stat",
    "/proc/meminfo",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/net/dev",
    "/proc/diskstats",
    "/proc/sys/kernel/random/boot_id",
)
MOST_FACT_BYTES = 256 * 1024

_PROBE = """\
_dir=@RUN_DIR@
if [ -z "$_dir" ]; then
	_uid=$(id -u)
	_dir=/tmp/tshrag-$_uid
	[ "$_uid" = 0 ] && [ -d /run ] && _dir=/run/tshrag
fi
echo "run_dir $_dir"
umask 077
mkdir -p "$_dir" 2>/dev/null
if [ -d "$_dir" ] && [ ! -L "$_dir" ] && [ -O "$_dir" ]; then
	_wrap=$_dir/wrap-@DIGEST@.sh
	cat >"$_wrap.$$" <<'@END@' && mv "$_wrap.$$" "$_wrap" && echo "wrap $_wrap"
@WRAP@
@END@
else
	echo "lacks run_dir"
fi
for _shell in bash /bin/sh ash 'busybox sh'; do
	_path=$(command -v ${_shell%% *}) || continue
	[ "$_shell" = 'busybox sh' ] && _path="$_path sh"
	[ "$($_path "$_wrap" selftest 2>/dev/null)" = ok ] || continue
	echo "shell $_path"
	break
done
for _tool in flock setsid tar; do
	_path=$(command -v $_tool) && echo "has $_tool $_path" || echo "lacks $_tool"
done
[ -r /proc/self/environ ] || echo "lacks /proc"
echo "os $(uname -s)"
echo "arch $(uname -m)"
echo "kernel $(uname -r)"
echo "hostname $(uname -n)"
echo "user $(id -un)"
echo "home $HOME"
read -r _boot 2>/dev/null </proc/sys/kernel/random/boot_id && echo "boot $_boot"
read -r _up _ 2>/dev/null </proc/uptime && echo "uptime $_up"
"""

_PROC = """\
for _file in @FILES@ /sys/class/thermal/thermal_zone*/type /sys/class/thermal/thermal_zone*/temp; do
	[ -r "$_file" ] && printf '\\036%s %s\\n' @NONCE@ "$_file" || continue
	case $_file in
	/proc/stat) read -r _line <"$_file" && echo "$_line" ;; # of each core: too much for a console
	*) cat "$_file" 2>/dev/null ;;
	esac
done
"""


def probe_script(wrap: bytes, run_dir: str) -> bytes:
    """Return what puts the wrapper in its place on the DUT and tells what the DUT is."""
    digest = hashlib.sha256(wrap).hexdigest()
    text = _PROBE.replace("@RUN_DIR@", quote(run_dir).decode()).replace("@DIGEST@", digest[:16])
    return text.replace("@END@", f"END_{digest}").encode().replace(b"@WRAP@", wrap.rstrip(b"\n"))


class Answers:
    """What a DUT answered to the probe."""

    def __init__(self, text: str) -> None:
        pairs = [line.partition(" ")[::2] for line in text.splitlines()]
        self._one = dict(pairs)
        self.lacks = tuple(value for key, value in pairs if key == "lacks")
        self.tools = dict(value.partition(" ")[::2] for key, value in pairs if key == "has")
        self.wrap = self._one.get("wrap", "")
        self.home = self._one.get("home", "")
        self.shell = self._one.get("shell", "")
        self.run_dir = self._one.get("run_dir", "")

    @property
    def can_guard(self) -> bool:
        return bool(self.shell and self.wrap and "/proc" not in self.lacks)

    def probe(self) -> DutProbe:
        said = self._one.get
        uptime = said("uptime", "")
        return DutProbe(
            os=said("os", "").lower(),
            arch=said("arch", ""),
            kernel=said("kernel", ""),
            hostname=said("hostname", ""),
            user=said("user", ""),
            boot=said("boot", ""),
            uptime_s=float(uptime) if uptime.replace(".", "", 1).isdigit() else 0.0,
            shell=self.shell,
            run_dir=self.run_dir,
            guarded=self.can_guard,
            lacks=self.lacks if self.shell else (*self.lacks, "a shell whose read knows -t"),
        )


def proc_script(nonce: str) -> bytes:
    """Return what prints the files of the sampler, each behind a line with `nonce`."""
    return _PROC.replace("@FILES@", " ".join(PROC_FILES)).replace("@NONCE@", nonce).encode()


def proc_reading(text: str, nonce: str) -> ProcReading:
    """Return the files that came, by their path."""
    parts = text.split(f"\036{nonce} ")[1:]
    return {path: body for path, _, body in (part.partition("\n") for part in parts)}
