"""PURE: the script that asks a DUT on a console what it is; ``dut_facts.Answers`` reads it."""

from tshrag_agent.transport.launch import quote

TOOLS = ("base64", "gzip", "od", "stty", "tar")

_FACTS = """\
_ts_d=@RUN_DIR@
if [ -z "$_ts_d" ]; then
_ts_d=/tmp/tshrag-$(id -u)
[ "$_ts_d" = /tmp/tshrag-0 ] && [ -d /run ] && _ts_d=/run/tshrag
fi
(umask 077;mkdir -p "$_ts_d" 2>/dev/null)
if [ -d "$_ts_d" ] && [ ! -L "$_ts_d" ] && [ -w "$_ts_d" ];then echo "run_dir $_ts_d"
else echo "lacks run_dir";fi
for _ts_p in @TOOLS@;do
if command -v $_ts_p >/dev/null 2>&1;then echo "has $_ts_p $_ts_p";else echo "lacks $_ts_p";fi
done
[ -r /proc/self/environ ]||echo "lacks /proc"
echo "os $(uname -s)"
echo "arch $(uname -m)"
echo "kernel $(uname -r)"
echo "hostname $(uname -n)"
echo "user $(id -un)"
echo "home $HOME"
read -r _ts_p 2>/dev/null <"${TSHRAG_BOOT_ID:-/proc/sys/kernel/random/boot_id}"&&echo "boot $_ts_p"
read -r _ts_p _ 2>/dev/null </proc/uptime&&echo "uptime $_ts_p"
"""


def facts_script(run_dir: str) -> bytes:
    """Return the script; a simulated board says by its environment where its own things are."""
    where = quote(run_dir).decode() if run_dir else '"${TSHRAG_RUN_DIR:-}"'
    return _FACTS.replace("@RUN_DIR@", where).replace("@TOOLS@", " ".join(TOOLS)).encode()
