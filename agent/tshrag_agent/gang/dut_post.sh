# The post of a gang's job on its DUT. Its standard input and output lead to the agent:
# "N ARGV BODY" goes there, "N CODE =OUT =ERR" comes back. It ends with its input.
IFS= read -r d
IFS= read -r tool
umask 077
for need in mkfifo od tr head mv rm cat kill; do
	command -v $need >/dev/null || { printf 'lacks %s\n' $need; exit 1; }
done
rm -rf "$d"
mkdir "$d" && mkdir "$d/bin" "$d/in" "$d/out" && mkfifo "$d/asks" &&
	printf '%b' "$tool" >"$d/bin/tshrag-sync" && chmod 700 "$d/bin/tshrag-sync" ||
	{ printf 'lacks room for %s\n' "$d"; exit 1; }
exec 3<>"$d/asks"
(
	exec </dev/null
	while IFS= read -r n <&3; do
		[ -f "$d/out/$n" ] || continue
		printf '%s ' "$n" && cat "$d/out/$n" && printf '\n' || exit
		rm -f "$d/out/$n"
	done
) &
reader=$!
printf 'ready\n'
while IFS= read -r line; do
	n=${line%% *}
	[ -p "$d/in/$n" ] || continue
	printf '%s\n' "${line#* }" >"$d/in/$n.a" && printf '\n' 1<>"$d/in/$n"
done
kill "$reader"
for way in "$d"/in/*; do
	[ ! -p "$way" ] || printf '\n' 1<>"$way"
done
rm -rf "$d"
