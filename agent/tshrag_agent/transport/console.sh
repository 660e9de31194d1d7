# What a shell on a console is taught once after the login; it is typed, so it is short.
# transport/remote_shell.py uses it. Marks: TSHRAG_MARK=tree:... as wrap.sh has them.
_ts_z=0.1 _ts_k=10
sleep 0.1 2>/dev/null || _ts_z=1 _ts_k=1
_ts_marked() { # pids with the mark $1
	if printf 'a\0b' | grep -qs b; then # busybox grep sees nothing behind a NUL
		grep -lsF -e "TSHRAG_MARK=$1" /proc/[0-9]*/environ
	else
		for _ts_p in /proc/[0-9]*/environ; do
			tr '\0' '\n' 2>/dev/null <"$_ts_p" | grep -qsF -e "TSHRAG_MARK=$1" && echo "$_ts_p"
		done
	fi | while IFS=/ read -r _ _ _ts_p _; do echo "$_ts_p"; done
}
_ts_end() { # end those with $1: TERM, after $2 seconds KILL, five more; _ts_l is what stays
	_ts_i=0
	while _ts_l=$(echo $(_ts_marked "$1")) && [ -n "$_ts_l" ]; do
		[ $_ts_i = 0 ] && kill -TERM $_ts_l 2>/dev/null
		[ $_ts_i -ge $(($2 * _ts_k)) ] && kill -KILL $_ts_l 2>/dev/null
		[ $_ts_i -ge $((($2 + 5) * _ts_k)) ] && return 1
		_ts_i=$((_ts_i + 1))
		sleep $_ts_z
	done
}
_ts_go() { # the script in _ts_t under the mark $2, between marks with the nonce $1
	printf '\036%sB\036' "$1"
	TSHRAG_MARK=$2 sh -c 'set -m 2>/dev/null; sh -c "$1" </dev/null & wait $! 2>/dev/null' sh "$_ts_t"
	_ts_r=$?
	_ts_t=
	_ts_end "$2" "$3"
	printf '\036%sE%s %s\036\n' "$1" "$_ts_r" "$_ts_l"
}
_ts_get() { # lines of base64 (b) or octal (o) into the file $3, each answered, until a dot
	printf '\036%sB\036' "$1"
	if [ "$2" = b ]; then _ts_lines "$1" b | base64 -d >"$3"; else _ts_lines "$1" o >"$3"; fi
	printf '\036%sE%s\036\n' "$1" $?
}
_ts_lines() {
	while IFS= read -r _ts_p && [ "$_ts_p" != . ]; do
		if [ "$2" = b ]; then printf '%s\n' "$_ts_p"; else printf "$_ts_p"; fi
		printf '\036%s.\036' "$1" >&2
	done
}
