#!/bin/bash
# Process 1 of the machine: mounts what Debian would, unpacks the project from the second disk, has it tried, and ends.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1777,size=2g tmpfs /tmp
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ln -sfn /proc/self/fd /dev/fd
ip link set lo up
hostname kernel-test
for word in $(cat /proc/cmdline); do
    case $word in kernel_test.*=*) declare "${word#kernel_test.}" ;; esac
done
cd /srv/unityai
tar -xf "$disk"
.venv/bin/python -B -m tests.kernels.inside --machine "$machine" --suite "$suite" ${parts//,/ }
echo "kernel-test: the program inside left with $?"
dmesg | tail -n 60
sync
echo o > /proc/sysrq-trigger
sleep 10
poweroff -f
