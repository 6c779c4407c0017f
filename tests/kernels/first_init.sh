#!/bin/busybox sh
# /init of the initramfs: loads what the root disk needs, mounts it, and hands over to init.sh.
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for file in /modules/*; do /bin/busybox insmod "$file" || echo "cannot load $file"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 120 ]; do /bin/busybox sleep 1; tries=$((tries + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root || { echo "no root disk"; /bin/busybox poweroff -f; }
/bin/busybox mount -o move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /kernel-test-init
