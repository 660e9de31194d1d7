# Guards one command on a DUT: fence before the start, lease while it lasts, nothing left behind.
#
# Needs /proc and a shell whose `read` knows -t: bash, busybox ash; not dash. transport/wrapper.py
# drives it; protocol and reasons are in docs/decisions/0025.
#
#   wrap.sh selftest
#   wrap.sh guard|end RUN_DIR DUT FENCE HOLDER SERIAL LEASE_S GRACE_DS SHELL...
#
# FENCE has 21 digits; equal fences must come from one HOLDER. On stdin: a nonce, the launch script,
# the nonce again; then a line every now and then ("stop" ends it). On stderr, between what the
# command says: RS NONCE started PID, RS NONCE ended STATUS CAUSE PIDS-LEFT. The first one is on
# stdout too: what stands before it was said by somebody's shell profile.
# Exit 73: a newer fence has been seen. 74: the fence cannot be taken. 75: something stays alive.
#
# Marks: TSHRAG_MARK=guard:... in the environment of this shell and its helpers, =tree:... in that
# of the command and all that it starts. They are there from exec on, so no process is ever without.

set -u
unset IFS

say() { printf 'tshrag: %s\n' "$*" >&2; }

older() { # is fence $1 older than $2? by seven digits at a time: every `test` can hold those
	_a=$1 _b=$2
	while [ -n "$_a" ]; do
		_x=${_a%"${_a#???????}"} _y=${_b%"${_b#???????}"}
		[ "$_x" -lt "$_y" ] && return 0
		[ "$_x" -gt "$_y" ] && return 1
		_a=${_a#???????} _b=${_b#???????}
	done
	return 1
}

now() { # tenths of a second since boot, into _now; no wall clock: it may jump
	read -r _up _ </proc/uptime
	_now=${_up%.*}
	_up=${_up#*.}
	_now=$((_now * 10 + ${_up%?}))
}

note() { # a line of the history of a test (tshrag_common/history.py); nothing in production
	[ "${TSHRAG_TEST_MODE:-}" = 1 ] && [ -n "${TSHRAG_HISTORY:-}" ] || return 0
	read -r _up _ </proc/uptime
	printf '{"mono_ns":%s%s0000000,"host":"","boot":"%s","actor":"wrapper","ev":"%s","dut":"%s","fence":"%s"}\n' \
		"${_up%.*}" "${_up#*.}" "$_boot" "$1" "$_dut" "$_fence" >>"$TSHRAG_HISTORY/wrapper-$_dut.jsonl"
}

nap() { sleep 0.1 2>/dev/null || sleep 1; }

marked() { # pids with the mark $1 in their environment
	if printf 'a\0b' | grep -qs b; then # some see nothing behind a NUL, busybox with -F too
		grep -ls -e "TSHRAG_MARK=$1" /proc/[0-9]*/environ
	else
		tail -n +1 /proc/[0-9]*/environ 2>/dev/null | tr '\0' '\n' | awk -v mark="TSHRAG_MARK=$1" '
			/^==> \/proc\/[0-9]+\/environ <==$/ { path = $2; next }
			index($0, mark) == 1 { print path }'
	fi | while read -r _path; do
		_path=${_path#/proc/}
		echo "${_path%/environ}"
	done
}

session() { # living pids of the session in lead file $1: also those that dropped their environment
	{ read -r _in _lead _began <"$1"; } 2>/dev/null || return 0
	[ "$_in" = "$_boot" ] || return 0
	if { read -r _line <"/proc/$_lead/stat"; } 2>/dev/null; then
		set -- ${_line##*) }
		[ "${20}" = "$_began" ] || return 0 # the number belongs to another program by now
	fi
	for _dir in /proc/[0-9]*; do
		{ read -r _line <"$_dir/stat"; } 2>/dev/null || continue
		set -- ${_line##*) }
		[ "${4:-}" = "$_lead" ] || continue
		case $1 in Z | X) ;; *) echo "${_dir#/proc/}" ;; esac
	done
}

tree() {
	marked "tree:$_mark"
	session "$_state.lead"
}

without() { # what is in $1, not in $2, and still there: helpers of this shell come and go
	_not=" $(echo $2) "
	for _one in $1; do
		case $_not in *" $_one "*) continue ;; esac
		[ ! -e "/proc/$_one" ] || echo "$_one"
	done
}

strangers() { # pids of kind $1 (tree, guard) on this DUT that are not of this fence
	_all=$(marked "$1:$_base:")
	# asked for later, so that a child of our own that is in the first is in the second too
	[ -z "$_all" ] || without "$_all" "$(marked "$1:$_base:$_fence:")"
}

strange_trees() {
	strangers tree
	for _file in "$_base".*.lead; do
		case $_file in *".$_fence."*) ;; *) session "$_file" ;; esac
	done
}

strange_guards() { strangers guard; }

this_fence() {
	marked "tree:$_base:$_fence:"
	for _file in "$_base.$_fence".*.lead; do session "$_file"; done
}

its_guards() { without "$(marked "guard:$_base:$_fence:")" "$(marked "guard:$_mark")"; }

finish() { # end what $1 lists: TERM, at $2 KILL, five seconds more; 1 when something stays
	_pids=$($1)
	[ -n "$_pids" ] || return 0
	kill -TERM $_pids 2>/dev/null
	while nap; do
		_pids=$($1)
		[ -n "$_pids" ] || return 0
		now
		[ "$_now" -lt "$2" ] && continue
		kill -KILL $_pids 2>/dev/null
		[ "$_now" -lt $(($2 + 50)) ] || return 1
	done
}

lock() { # at most 30 s; flock where it is, else a link that names its owner
	_tries=0
	command -v flock >/dev/null 2>&1 && exec 9>"$_base.lock"
	until _try_lock; do
		_tries=$((_tries + 1))
		if [ "$_tries" -gt 300 ]; then
			say "the fence of $_dut is locked by another session for 30 s"
			exit 74
		fi
		nap
	done
}

_try_lock() {
	command -v flock >/dev/null 2>&1 && { flock -n 9; return; }
	ln -s "$$" "$_base.held" 2>/dev/null && return 0
	_owner=$(readlink "$_base.held") || return 1
	if [ ! -d "/proc/$_owner" ] && mv "$_base.held" "$_base.held.$$" 2>/dev/null; then
		[ "$(readlink "$_base.held.$$")" = "$_owner" ] || mv -n "$_base.held.$$" "$_base.held"
		rm -f "$_base.held.$$"
	fi
	return 1
}

unlock() {
	if command -v flock >/dev/null 2>&1; then
		flock -u 9
		exec 9>&-
	else
		rm -f "$_base.held"
	fi
}

take_fence() { # under the lock: refuse what is not newer, keep what is
	_seen='' _by=''
	if [ -e "$_base.fence" ]; then
		read -r _seen _by <"$_base.fence"
		case $_seen in
		*[!0-9]*) _seen='' ;;
		esac
		case $_seen in
		?????????????????????) ;;
		*)
			say "$_base.fence is damaged: see that no job is on this DUT, then remove the file"
			exit 74
			;;
		esac
		if older "$_fence" "$_seen" || { [ "$_fence" = "$_seen" ] && [ "$_holder" != "$_by" ]; }; then
			note stale_fence
			printf 'stale_fence %s\n' "$_seen" >&2
			exit 73
		fi
	fi
	[ "$_fence" = "$_seen" ] && return
	printf '%s %s\n' "$_fence" "$_holder" >"$_base.fence.$$" &&
		{ sync "$_base.fence.$$" 2>/dev/null || sync; } &&
		mv "$_base.fence.$$" "$_base.fence" && return
	say "$_base.fence cannot be written"
	exit 74
}

end_strangers() {
	now
	finish strange_trees $((_now + _grace)) || return 1
	now
	finish strange_guards $((_now + 20)) || return 1 # they see their tree gone, and say so
	for _file in "$_base".*.lead; do
		case $_file in *".$_fence."*) ;; *) rm -f "$_file" "${_file%.lead}.end" ;; esac
	done
}

watch() { # the lease: a line in time, or the end of the tree; the guard itself ends this loop
	_why=lost
	while IFS= read -r -t "$_lease" _line; do
		[ "$_line" = stop ] && _why=stopped && break
	done
	now
	echo "$_why $_now" >"$_state.end"
	hurry
	while :; do # also a command that has not come to its exec yet
		finish tree $((_now + _grace))
		kill -0 $$ 2>/dev/null || exit 0
		nap
	done
}

hurry() { # who holds this DUT next counts on the end of the lease: half a second for SIGTERM
	[ "$_why" = lost ] && [ "$_grace" -gt 5 ] && _grace=5
}

lead() { # becomes the command: what it is must be on record before it can fork
	exec 3<&-
	read -r _line </proc/self/stat
	_pid=${_line%% *}
	set -- ${_line##*) }
	echo "$_boot $_pid ${20}" >"$_state.lead"
	printf '\036%s started %s\n' "$_nonce" "$_pid"
	printf '\036%s started %s\n' "$_nonce" "$_pid" >&8
	TSHRAG_MARK="tree:$_mark"
	eval "$_script"
}

read_script() {
	_nl='
'
	_script=''
	IFS= read -r -t "$_lease" _nonce || exit 74
	while IFS= read -r -t "$_lease" _line; do
		[ "$_line" = "$_nonce" ] && return
		_script=$_script$_line$_nl
	done
	exit 74 # the link was lost before all of it came: nothing has been started
}

guard() {
	read_script
	exec 3<&0 8>&2 </dev/null 2>/dev/null
	trap : HUP INT TERM PIPE
	# not as redirections of the call: ash would keep copies, and whoever hears us would wait
	(exec <&3 >/dev/null 3<&- 8>&- && watch) &
	_watch=$!
	(lead)
	_status=$?
	kill -KILL "$_watch"
	wait "$_watch"
	_why=exit
	now
	[ -e "$_state.end" ] && read -r _why _now <"$_state.end"
	hurry
	_left=''
	finish tree $((_now + _grace)) || _left=$(tree)
	note "tree_$_why"
	rm -f "$_state.lead" "$_state.end"
	read -r _seen _by <"$_base.fence" && older "$_fence" "$_seen" && _why=superseded
	# nobody listens after a lost link, and a full pipe would hold this shell for ever
	[ "$_why" = lost ] || printf '\036%s ended %s %s %s\n' "$_nonce" "$_status" "$_why" "$(echo $_left)" >&8
	exit "$_status"
}

if [ "$1" = selftest ]; then
	echo x | { read -r -t 2 _line && [ "$_line" = x ]; } || exit 1
	read -r _line </proc/self/stat && read -r _line </proc/sys/kernel/random/boot_id || exit 1
	export TSHRAG_MARK="guard:selftest:$$:"
	(ZZ='a b' sleep 5 >/dev/null) & # exec sets what /proc shows
	_child=$! _tries=0
	until [ -n "$(marked "guard:selftest:$$:")" ] || [ "$_tries" -gt 20 ]; do
		_tries=$((_tries + 1))
		nap
	done
	_line=$(marked "guard:selftest:$$:")
	kill $_child $_line 2>/dev/null
	[ -n "$_line" ] && echo ok
	exit
fi

_stage=$1 _run=$2 _dut=$3 _fence=$4 _holder=$5 _serial=$6 _lease=$7 _grace=$8
shift 8
_base=$_run/$_dut
_state=$_base.$_fence.$_holder.$_serial
_mark=$_base:$_fence:$_holder:$_serial:
read -r _boot </proc/sys/kernel/random/boot_id

case $_stage in
guard)
	lock
	take_fence
	export TSHRAG_MARK="guard:$_mark" # from the next exec on: who only waits for the lock has none
	exec "$@" "$0" locked "$_run" "$_dut" "$_fence" "$_holder" "$_serial" "$_lease" "$_grace"
	;;
locked)
	end_strangers || { say "something of an older attempt on $_dut cannot be ended: $(echo $_pids)"; exit 75; }
	unlock
	note fence_taken
	guard
	;;
end)
	lock
	now
	finish this_fence $((_now + _grace)) || { say "something on $_dut cannot be ended: $(echo $_pids)"; exit 75; }
	now
	finish its_guards $((_now + 20))
	rm -f "$_base.$_fence".*.lead "$_base.$_fence".*.end
	unlock
	;;
esac
