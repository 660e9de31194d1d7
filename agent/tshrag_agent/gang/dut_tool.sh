#!/bin/sh
# tshrag-sync on a DUT: carries the words of the call to the agent, and what comes back.
# Needs sh, mkfifo, od, tr, head and rm, as busybox has them.
d=${TSHRAG_SYNC:-}
lost() { printf 'tshrag-sync: %s: %s\n' "$1" "$2" >&2; exit "$3"; }
[ -p "$d/asks" ] || lost sync_no_gang "TSHRAG_SYNC leads nowhere: this job is in no gang" 3
hex() { od -An -v -tx1 | tr -d ' \n'; }
body=- to='' before=''
for word; do
	[ "$before" != --to ] || to=$word
	case $1/$word in
	send/@-) body=$(head -c 65537 | hex) ;;
	send/@*) [ -r "${word#@}" ] || lost usage "${word#@} cannot be read" 2
		body=$(head -c 65537 <"${word#@}" | hex) ;;
	recv/--to=*) to=${word#--to=} ;;
	esac
	before=$word
done
n=$$
trap 'rm -f "$d/in/$n" "$d/in/$n.a"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
rm -f "$d/in/$n" "$d/in/$n.a"
mkfifo "$d/in/$n" && exec 4<>"$d/in/$n" || lost sync_agent "no way back can be made" 3
printf '%s %s' "$(printf '%s\0' "$@" | hex)" "$body" >"$d/out/$n.new" &&
	mv "$d/out/$n.new" "$d/out/$n" || lost storage_full "the call cannot be written" 3
printf '%s\n' "$n" 1<>"$d/asks"
IFS= read -r _ <&4
[ -f "$d/in/$n.a" ] || lost sync_agent "no answer from the agent" 3
read -r code out err <"$d/in/$n.a"
if [ "$1" = recv ] && [ "$code" = 0 ] && [ -n "$to" ]; then
	printf '%b' "${out#=}" >"$to" || exit 2
else
	printf '%b' "${out#=}"
fi
printf '%b' "${err#=}" >&2
exit "$code"
