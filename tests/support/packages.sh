#!/bin/bash
# Installs the Debian packages that tests drive (root, apt-get); says loudly what is missing elsewhere.
# One line a program (or a file): its name, its package.
set -eu -o pipefail
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=()
while read -r program package; do
	command -v "$program" >/dev/null || [ -e "$program" ] || missing+=("$package")
done <<'END'
sshd openssh-server
dropbear dropbear-bin
dropbearkey dropbear-bin
busybox busybox
socat socat
tmux tmux
picocom picocom
minicom minicom
screen screen
tio tio
ser2net ser2net
ipmitool ipmitool
ipmi_sim openipmi
rb lrzsz
unshare util-linux
systemd-analyze systemd
prometheus prometheus
mkfs.ext4 e2fsprogs
mkfs.btrfs btrfs-progs
qemu-system-arm qemu-system-arm
qemu-img qemu-utils
/usr/lib/u-boot/qemu_arm/u-boot.bin u-boot-qemu
rsync rsync
gdb gdb
gdbserver gdbserver
snmpd snmpd
snmpset snmp
ip iproute2
nft nftables
faketime faketime
END
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing for the tests: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >/dev/null
	apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
else
	echo "tests that need these will be SKIPPED: apt-get install ${missing[*]}" >&2
fi
